//! Selects the pool for a session's virtual IPs. Programs that open sessions use this module. Hook
//! layers do not use this module.

use super::Executable;

/// A rule that selects a pool for sessions: for certain users, for members of certain groups, and
/// for sessions that start certain programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
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

impl PoolRule {
    /// Creates a rule for this pool that matches no session.
    #[must_use]
    pub fn new(pool: impl Into<String>) -> Self {
        Self { pool: pool.into(), ..Self::default() }
    }

    /// Sets the users whose sessions the rule matches.
    #[must_use]
    pub fn with_users(mut self, users: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.users = users.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the groups whose members' sessions the rule matches.
    #[must_use]
    pub fn with_groups(mut self, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the programs whose sessions the rule matches.
    #[must_use]
    pub fn with_programs(mut self, programs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.programs = programs.into_iter().map(Into::into).collect();
        self
    }
}

/// One criterion of a rule, in order of precedence: a user wins over a group, and a group wins over
/// a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PoolCriterion<'r> {
    User(&'r str),
    Group(&'r str),
    Program(&'r str),
}

/// Returns all criteria with their pools, in order of precedence.
pub(super) fn by_precedence(rules: &[PoolRule]) -> impl Iterator<Item = (PoolCriterion<'_>, &str)> {
    fn criteria<'r>(
        rules: &'r [PoolRule],
        names: fn(&PoolRule) -> &[String],
        criterion: fn(&'r str) -> PoolCriterion<'r>,
    ) -> impl Iterator<Item = (PoolCriterion<'r>, &'r str)> {
        rules.iter().flat_map(move |rule| {
            names(rule).iter().map(move |name| (criterion(name), &*rule.pool))
        })
    }
    criteria(rules, |rule| &rule.users, PoolCriterion::User)
        .chain(criteria(rules, |rule| &rule.groups, PoolCriterion::Group))
        .chain(criteria(rules, |rule| &rule.programs, PoolCriterion::Program))
}

/// Returns the pool for a session of this user with these groups. `program` is the program that the
/// session starts, if known. Among rules of equal precedence, the first wins. If no rule matches,
/// returns `None`, and the caller uses the default pool.
///
/// ```
/// use vipool::policy::{PoolRule, choose_pool};
///
/// let lab = PoolRule::new("lab").with_groups(["students"]);
/// let boss = PoolRule::new("office").with_users(["ada"]);
/// let rules = [lab, boss];
/// assert_eq!(choose_pool(&rules, "ada", &["students"], None), Some("office"));
/// assert_eq!(choose_pool(&rules, "bob", &["students"], None), Some("lab"));
/// assert_eq!(choose_pool(&rules, "eve", &["staff"], None), None);
/// ```
#[must_use]
pub fn choose_pool<'r>(
    rules: &'r [PoolRule],
    user: &str,
    groups: &[&str],
    program: Option<&Executable<'_>>,
) -> Option<&'r str> {
    let matches = |criterion: &PoolCriterion<'_>| match criterion {
        PoolCriterion::User(name) => *name == user,
        PoolCriterion::Group(name) => groups.contains(name),
        PoolCriterion::Program(pattern) => {
            program.is_some_and(|program| program.is(pattern.as_bytes()))
        }
    };
    by_precedence(rules).find(|(criterion, _)| matches(criterion)).map(|(_, pool)| pool)
}
