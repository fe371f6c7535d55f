//! Selects the pool for a session's virtual IPs. Programs that open sessions use this module. Hook
//! layers do not use this module.

use std::convert::Infallible;

use super::Executable;

/// A rule that selects a pool for sessions. It matches a session if the session's user is listed or
/// is a member of a listed group, or if the session starts a listed program.
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
    /// Creates a rule for this pool. The rule matches no session until it has users, groups or
    /// programs.
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

    /// Sets the groups. The rule matches each session whose user is a member of one of them.
    #[must_use]
    pub fn with_groups(mut self, groups: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.groups = groups.into_iter().map(Into::into).collect();
        self
    }

    /// Sets the programs. The rule matches each session that starts one of them.
    #[must_use]
    pub fn with_programs(mut self, programs: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.programs = programs.into_iter().map(Into::into).collect();
        self
    }
}

/// One criterion of a rule, in order of precedence: a user wins over a group, and a group wins over
/// a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PoolCriterion<'r> {
    User(&'r str),
    Group(&'r str),
    Program(&'r str),
}

/// Returns all criteria with their pools, in order of precedence.
fn criteria_by_precedence(rules: &[PoolRule]) -> impl Iterator<Item = (PoolCriterion<'_>, &str)> {
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

/// Returns the name of the pool for a session. `user` is the session's user, and `groups` are the
/// groups of the user. `program` is the program that the session starts, if known.
///
/// A user wins over a group, and a group wins over a program. Among rules that match by the same
/// criterion, the first wins. If no rule matches, returns `None`, and the caller uses the default
/// pool.
///
/// ```
/// use vipool::policy::{PoolRule, choose_pool};
///
/// let lab_rule = PoolRule::new("lab").with_groups(["students"]);
/// let office_rule = PoolRule::new("office").with_users(["ada"]);
/// let rules = [lab_rule, office_rule];
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
    let is_member = |group: &str| Ok::<_, Infallible>(groups.contains(&group));
    let Ok(pool) = choose_pool_by(rules, user, is_member, program);
    pool
}

/// Returns the same pool as [`choose_pool`]. Calls `is_member` for the groups of the rules, and
/// only until a rule matches.
///
/// # Errors
/// Returns the error of `is_member`. The pool is then unknown: the user may be in the group.
pub(crate) fn choose_pool_by<'r, E>(
    rules: &'r [PoolRule],
    user: &str,
    mut is_member: impl FnMut(&str) -> Result<bool, E>,
    program: Option<&Executable<'_>>,
) -> Result<Option<&'r str>, E> {
    for (criterion, pool) in criteria_by_precedence(rules) {
        let is_match = match criterion {
            PoolCriterion::User(name) => name == user,
            PoolCriterion::Group(name) => is_member(name)?,
            PoolCriterion::Program(pattern) => {
                program.is_some_and(|program| program.is(pattern.as_bytes()))
            }
        };
        if is_match {
            return Ok(Some(pool));
        }
    }
    Ok(None)
}

/// Encodes rules for the sessions file of a map. Numbers have 32 bits, and the length of each text
/// precedes the text. Equal rules have equal bytes.
pub(crate) fn encode_rules(rules: &[PoolRule]) -> Vec<u8> {
    fn append_text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u32).to_le_bytes());
        out.extend(text.as_bytes());
    }
    let mut out = Vec::new();
    for rule in rules {
        append_text(&mut out, &rule.pool);
        for names in [&rule.users, &rule.groups, &rule.programs] {
            out.extend((names.len() as u32).to_le_bytes());
            names.iter().for_each(|name| append_text(&mut out, name));
        }
    }
    out
}

/// Decodes the result of [`encode_rules`]. Returns `None` if the bytes are malformed.
pub(crate) fn decode_rules(mut bytes: &[u8]) -> Option<Vec<PoolRule>> {
    fn read_number(bytes: &mut &[u8]) -> Option<usize> {
        let (number, rest) = bytes.split_first_chunk()?;
        *bytes = rest;
        Some(u32::from_le_bytes(*number) as usize)
    }
    fn read_text(bytes: &mut &[u8]) -> Option<String> {
        let length = read_number(bytes)?;
        let (text, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        String::from_utf8(text.to_vec()).ok()
    }
    let mut rules = Vec::new();
    while !bytes.is_empty() {
        let mut rule = PoolRule::new(read_text(&mut bytes)?);
        for names in [&mut rule.users, &mut rule.groups, &mut rule.programs] {
            for _ in 0..read_number(&mut bytes)? {
                names.push(read_text(&mut bytes)?);
            }
        }
        rules.push(rule);
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> impl Strategy<Value = Vec<PoolRule>> {
        let names = || prop::collection::vec("[a-c\u{e9}]{0,2}", 0..3);
        let rule = (names(), names(), names(), "[a-c]")
            .prop_map(|(users, groups, programs, pool)| PoolRule { pool, users, groups, programs });
        prop::collection::vec(rule, 0..4)
    }

    proptest! {
        #[test]
        fn encoded_rules_round_trip_and_damage_never_panics(
            rules in rules(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
            cut_length: prop::sample::Index,
        ) {
            let mut bytes = encode_rules(&rules);
            prop_assert_eq!(decode_rules(&bytes), Some(rules));
            if !bytes.is_empty() {
                for (index, value) in damage {
                    let index = index.index(bytes.len());
                    bytes[index] = value;
                }
                let _ = decode_rules(&bytes);
                let _ = decode_rules(&bytes[..cut_length.index(bytes.len())]);
            }
        }
    }

    #[test]
    fn groups_are_queried_only_until_a_rule_matches() {
        let rules = [
            PoolRule::new("lab").with_groups(["students", "guests"]),
            PoolRule::new("office").with_users(["ada"]),
            PoolRule::new("web").with_programs(["firefox"]),
        ];
        let mut queried_groups = Vec::new();
        let mut choose = |user| {
            queried_groups.clear();
            let is_member = |group: &str| {
                queried_groups.push(group.to_owned());
                if group == "students" { Ok(user == "bob") } else { Err("no answer") }
            };
            (choose_pool_by(&rules, user, is_member, None), queried_groups.len())
        };
        assert_eq!(choose("ada"), (Ok(Some("office")), 0));
        assert_eq!(choose("bob"), (Ok(Some("lab")), 1));
        assert_eq!(choose("eve"), (Err("no answer"), 2));
    }
}
