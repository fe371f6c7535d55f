//! Which pool a session takes its virtual IPs from. Who opens a session goes by it; hook layers
//! have no use for it.

use super::Executable;

/// Whose sessions take their virtual IPs from a pool: those of a user, of a member of a group, or
/// in which a program is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRule {
    /// The name of the pool.
    pub pool: String,
    /// User names.
    pub users: Vec<String>,
    /// Group names.
    pub groups: Vec<String>,
    /// Programs: full paths or bare file names, as in the process list.
    pub programs: Vec<String>,
}

/// What a rule asks of a session. The order is that in which rules are paths: one that names the
/// user wins over one that names a group, that over one that names the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PoolCriterion<'r> {
    User(&'r str),
    Group(&'r str),
    Program(&'r str),
}

/// All that the rules ask, in the order in which it counts, each with the pool it leads to.
pub(super) fn by_precedence(rules: &[PoolRule]) -> impl Iterator<Item = (PoolCriterion<'_>, &str)> {
    fn each<'r>(
        rules: &'r [PoolRule],
        names: fn(&PoolRule) -> &[String],
        wants: fn(&'r str) -> PoolCriterion<'r>,
    ) -> impl Iterator<Item = (PoolCriterion<'r>, &'r str)> {
        rules
            .iter()
            .flat_map(move |rule| names(rule).iter().map(move |name| (wants(name), &*rule.pool)))
    }
    each(rules, |rule| &rule.users, PoolCriterion::User)
        .chain(each(rules, |rule| &rule.groups, PoolCriterion::Group))
        .chain(each(rules, |rule| &rule.programs, PoolCriterion::Program))
}

/// The pool for a session of this user, in these groups, in which this program is started (where
/// that is known); among equal rules the first counts. `None` if no rule holds: the default pool.
///
/// ```
/// use vipool::policy::{PoolRule, choose_pool};
///
/// let lab = PoolRule { pool: "lab".into(), groups: vec!["students".into()], ..Default::default() };
/// let boss = PoolRule { pool: "office".into(), users: vec!["ada".into()], ..Default::default() };
/// let rules = [lab, boss];
/// assert_eq!(choose_pool(&rules, "ada", &["students"], None), Some("office"));
/// assert_eq!(choose_pool(&rules, "bob", &["students"], None), Some("lab"));
/// assert_eq!(choose_pool(&rules, "eve", &["staff"], None), None);
/// ```
pub fn choose_pool<'r>(
    rules: &'r [PoolRule],
    user: &str,
    groups: &[&str],
    program: Option<&Executable<'_>>,
) -> Option<&'r str> {
    let holds = |wants: &PoolCriterion<'_>| match wants {
        PoolCriterion::User(name) => *name == user,
        PoolCriterion::Group(name) => groups.contains(name),
        PoolCriterion::Program(pattern) => {
            program.is_some_and(|program| program.is(pattern.as_bytes()))
        }
    };
    by_precedence(rules).find(|(wants, _)| holds(wants)).map(|(_, pool)| pool)
}
