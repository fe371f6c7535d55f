//! What this process is in: the map, its session, its program's rule. Made once, when the hooks
//! are set, and never taken down; calls only read it.

use std::sync::OnceLock;

use vipool::map::Reader;
use vipool::os::process;
use vipool::policy::{PathStyle, PolicyView};
use vipool::rewrite::{Live, Rewriter, Rules};
use vipool::session::{Addresses, Handle, SessionId};

use crate::outcome::Outcome;
use crate::{program, variable};

/// The style of paths that everything here follows.
pub const STYLE: PathStyle = PathStyle::Windows;

/// What this process is in.
pub struct Context {
    reader: Reader,
    session: Option<SessionId>,
    /// The rule that this program is under. `None` for a program that is not listed, in which only
    /// the programs that it starts are looked at.
    listed: OnceLock<Listed>,
}

/// What a listed program goes by.
pub struct Listed {
    world: Live<'static>,
    rules: Rules,
    /// The lease, once the session has one.
    lease: OnceLock<(Handle, Addresses)>,
}

static CONTEXT: OnceLock<Context> = OnceLock::new();

/// What this process is in, once the hooks are set.
pub fn get() -> Option<&'static Context> {
    CONTEXT.get()
}

/// What decides for a call that is made now; `None` if the program is not listed, or while its
/// session has no address.
pub fn rewriter() -> Option<Rewriter<'static, Live<'static>>> {
    let context = get()?;
    let listed = context.listed()?;
    let (handle, addresses) = listed.lease(context)?;
    let live = context.reader.is_live(handle);
    Some(Rewriter { addresses: *addresses, rules: listed.rules, live, world: &listed.world })
}

/// Finds out what this process is in. `inherited` is the id of the rule that a parent handed down;
/// 0 stands for none.
pub fn make(inherited: u64) -> Result<&'static Context, Outcome> {
    if variable::get::<2>("VIPOOL_DISABLE").is_some_and(|value| value.text() == b"1") {
        return Err(Outcome::Disabled);
    }
    if CONTEXT.get().is_none() {
        let reader = Reader::attach(&variable::map_directory()).map_err(|_| Outcome::NoMap)?;
        let session = session(&reader);
        _ = CONTEXT.set(Context { reader, session, listed: OnceLock::new() });
    }
    let context = CONTEXT.get().ok_or(Outcome::NoMap)?;
    let policy = context.reader.policy();
    if let Some(program) = program::own_rule(&policy).or_else(|| policy.inherited(inherited)) {
        let world = Live { reader: &context.reader, policy, program };
        let rules = Rules::of(&program, &policy);
        _ = context.listed.set(Listed { world, rules, lease: OnceLock::new() });
    }
    Ok(context)
}

impl Context {
    /// What this program goes by, if it is listed.
    pub fn listed(&self) -> Option<&Listed> {
        self.listed.get()
    }

    /// The compiled policy.
    pub fn policy(&self) -> PolicyView<'_> {
        self.reader.policy()
    }

    /// The rule that this program hands down to its children; 0 for none.
    pub fn handed_down(&self) -> u64 {
        let program = self.listed().map(|listed| listed.world.program);
        program.filter(|program| program.inherit()).map_or(0, |program| program.id())
    }
}

impl Listed {
    /// Whether lists of interfaces are to be filtered.
    pub fn hides_addresses(&self) -> bool {
        self.rules.hide_addresses
    }

    /// The lease that this process is under: the first that its session has while it runs.
    fn lease(&self, context: &Context) -> Option<&(Handle, Addresses)> {
        if let Some(lease) = self.lease.get() {
            return Some(lease);
        }
        let (handle, leases) = context.reader.find(context.session?)?;
        let addresses = context.reader.addresses(&leases);
        Some(self.lease.get_or_init(|| (handle, addresses)))
    }
}

/// The session of this process: that of the operating system, or, where the map's policy allows
/// it, the one of the lease that the environment names.
fn session(reader: &Reader) -> Option<SessionId> {
    if reader.policy().session_override()
        && let Some(lease) = variable::get::<128>("VIPOOL_LEASE")
    {
        let handle = Handle::parse(lease.text())?;
        return reader.is_live(&handle).then_some(handle.session);
    }
    process::session_of(std::process::id()).ok()
}
