//! Group filters: which groups a sync job is about.
//!
//! The text that a pattern is searched in is `<type>/<id>`; the namespace is not part of it.

use std::fmt;
use std::str::FromStr;

use regex::Regex;

use crate::name::NameError;
use crate::{BackupGroup, BackupType};

/// What a filter looks at.
#[derive(Debug, Clone)]
enum Criterion {
    Type(BackupType),
    Group(BackupGroup),
    /// Found anywhere in the text.
    Pattern(Regex),
}

/// One entry of a list of filters: `[include:|exclude:]` and `type:…`, `group:…` or `regex:…`.
#[derive(Debug, Clone)]
pub struct GroupFilter {
    criterion: Criterion,
    excludes: bool,
}

impl GroupFilter {
    /// Whether it leaves groups out.
    #[must_use]
    pub const fn excludes(&self) -> bool {
        self.excludes
    }

    /// Whether it is about a group, in whichever way.
    #[must_use]
    pub fn matches(&self, group: &BackupGroup) -> bool {
        match &self.criterion {
            Criterion::Type(ty) => group.ty == *ty,
            Criterion::Group(own) => group == own,
            Criterion::Pattern(pattern) => pattern.is_match(&group.to_string()),
        }
    }

    /// Whether a list of filters lets a group through: it matches at least one that includes, if there are any, and none
    /// that excludes. Their order does not matter.
    #[must_use]
    pub fn selects(filters: &[Self], group: &BackupGroup) -> bool {
        let mut including = filters
            .iter()
            .filter(|filter| !filter.excludes)
            .map(|filter| filter.matches(group))
            .peekable();
        let is_included = including.peek().is_none() || including.any(|matches| matches);
        let mut excluding = filters.iter().filter(|filter| filter.excludes);
        is_included && !excluding.any(|filter| filter.matches(group))
    }
}

impl FromStr for GroupFilter {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason: String| NameError::new("group filter", text, reason);
        let (rest, excludes) = match text.split_once(':') {
            Some(("include", rest)) => (rest, false),
            Some(("exclude", rest)) => (rest, true),
            _ => (text, false),
        };
        let criterion = match rest.split_once(':') {
            Some(("type", ty)) => Criterion::Type(
                ty.parse()
                    .map_err(|_| error("expected 'vm', 'ct' or 'host'".to_owned()))?,
            ),
            Some(("group", group)) => Criterion::Group(
                group
                    .parse()
                    .map_err(|_| error("expected <type>/<id>".to_owned()))?,
            ),
            Some(("regex", pattern)) => Criterion::Pattern(
                Regex::new(pattern).map_err(|_| error("bad regular expression".to_owned()))?,
            ),
            Some((prefix, _)) => {
                return Err(error(format!(
                    "expected 'group', 'type' or 'regex' prefix, got '{prefix}'"
                )));
            }
            None => return Err(error("expected type:, group: or regex:".to_owned())),
        };
        Ok(Self {
            criterion,
            excludes,
        })
    }
}

impl fmt::Display for GroupFilter {
    /// The stored form, in which inclusion has no prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.excludes {
            f.write_str("exclude:")?;
        }
        match &self.criterion {
            Criterion::Type(ty) => write!(f, "type:{ty}"),
            Criterion::Group(group) => write!(f, "group:{group}"),
            Criterion::Pattern(pattern) => write!(f, "regex:{pattern}"),
        }
    }
}

impl<'de> serde::Deserialize<'de> for GroupFilter {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;

    use super::*;

    fn selects(filters: &[&str], group: &str) -> bool {
        let filters: Vec<GroupFilter> = filters.iter().map(|text| text.parse().unwrap()).collect();
        GroupFilter::selects(&filters, &group.parse().unwrap())
    }

    #[test]
    fn what_includes_and_what_excludes_work_together() {
        assert!(selects(&[], "vm/100"));
        assert!(selects(&["type:vm"], "vm/100") && !selects(&["type:vm"], "ct/100"));
        assert!(selects(&["exclude:type:vm"], "ct/1") && !selects(&["exclude:type:vm"], "vm/1"));
        let both = ["include:regex:^vm/1\\d{2,3}$", "exclude:group:vm/101"];
        assert!(selects(&both, "vm/1000") && selects(&both, "vm/100"));
        assert!(!selects(&both, "vm/101") && !selects(&both, "vm/10") && !selects(&both, "ct/100"));
        assert!(selects(&["regex:00"], "host/a00b"));
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (text, reason) in [
            ("", "expected type:, group: or regex:"),
            ("vm/100", "expected type:, group: or regex:"),
            ("exclude:vm/100", "expected type:, group: or regex:"),
            (
                "foo:bar",
                "expected 'group', 'type' or 'regex' prefix, got 'foo'",
            ),
            ("type:lxc", "expected 'vm', 'ct' or 'host'"),
            ("group:vm", "expected <type>/<id>"),
            ("regex:(", "bad regular expression"),
        ] {
            assert_eq!(
                text.parse::<GroupFilter>().unwrap_err().reason,
                reason,
                "{text}"
            );
        }
    }

    fn group() -> impl Strategy<Value = String> {
        ("(vm|ct|host)", "[a-c0-2]{1,3}").prop_map(|(ty, id)| format!("{ty}/{id}"))
    }

    fn filter() -> impl Strategy<Value = String> {
        let criterion = prop_oneof![
            "(vm|ct|host)".prop_map(|ty| format!("type:{ty}")),
            group().prop_map(|group| format!("group:{group}")),
            "[a-c0-2]{0,2}".prop_map(|pattern| format!("regex:{pattern}")),
        ];
        (
            prop_oneof![Just(""), Just("include:"), Just("exclude:")],
            criterion,
        )
            .prop_map(|(prefix, criterion)| format!("{prefix}{criterion}"))
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,60}") {
            let _ = text.parse::<GroupFilter>();
        }

        #[test]
        fn the_stored_form_means_the_same(text in filter(), group in group()) {
            let parsed: GroupFilter = text.parse().unwrap();
            let again: GroupFilter = parsed.to_string().parse().unwrap();
            let group: BackupGroup = group.parse().unwrap();
            prop_assert_eq!(parsed.matches(&group), again.matches(&group));
            prop_assert_eq!(parsed.excludes(), again.excludes());
            prop_assert_eq!(parsed.to_string(), again.to_string());
        }

        #[test]
        fn the_order_of_filters_does_not_matter(
            mut filters in prop::collection::vec(filter(), 0..5), group in group()
        ) {
            let parse = |list: &[String]| list.iter().map(|text| text.parse().unwrap()).collect::<Vec<GroupFilter>>();
            let group: BackupGroup = group.parse().unwrap();
            let forwards = GroupFilter::selects(&parse(&filters), &group);
            filters.reverse();
            prop_assert_eq!(forwards, GroupFilter::selects(&parse(&filters), &group));
            // One more that excludes never lets more through.
            filters.push("exclude:type:vm".to_owned());
            prop_assert!(forwards || !GroupFilter::selects(&parse(&filters), &group));
        }
    }
}
