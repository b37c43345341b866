//! Matchers: which notification goes to which targets.
//!
//! Severity, field and calendar directives form a group each. `mode` says how directives of a group, and the groups, are combined;
//! `invert-match` turns the result round. A matcher without directives matches always, inverted or not.

use std::collections::BTreeSet;
use std::str::FromStr;

use backstop_calendar::DailyDuration;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use regex::Regex;
use serde_json::{Map, Value};

use crate::notification::{Notification, Severity};

/// How results are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// All have to match.
    #[default]
    All,
    /// One is enough.
    Any,
}

impl Mode {
    fn of(self, results: impl IntoIterator<Item = bool>) -> bool {
        let mut results = results.into_iter();
        match self {
            Self::All => results.all(|result| result),
            Self::Any => results.any(|result| result),
        }
    }
}

/// `exact:FIELD=VALUE,…` or `regex:FIELD=EXPRESSION`.
#[derive(Debug, Clone)]
pub enum FieldDirective {
    /// The field has one of these values.
    Exact {
        /// Name of the field.
        field: String,
        /// The values.
        values: Vec<String>,
    },
    /// The expression is found in the value of the field.
    Pattern {
        /// Name of the field.
        field: String,
        /// The expression.
        pattern: Regex,
    },
}

impl FieldDirective {
    fn matches(&self, notification: &Notification) -> bool {
        match self {
            Self::Exact { field, values } => notification
                .field(field)
                .is_some_and(|value| values.iter().any(|wanted| wanted == value)),
            Self::Pattern { field, pattern } => notification
                .field(field)
                .is_some_and(|value| pattern.is_match(value)),
        }
    }
}

impl FromStr for FieldDirective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let broken = || format!("could not apply filter: invalid match-field statement: {text}");
        let (kind, rest) = text.split_once(':').ok_or_else(broken)?;
        let (field, value) = rest.split_once('=').ok_or_else(broken)?;
        if !backstop_types::is_safe_id(field) {
            return Err(broken());
        }
        let field = field.to_owned();
        match kind {
            "exact" => Ok(Self::Exact {
                field,
                values: value
                    .split(',')
                    .map(|value| value.trim().to_owned())
                    .collect(),
            }),
            "regex" => Ok(Self::Pattern {
                field,
                pattern: Regex::new(value)
                    .map_err(|err| format!("could not apply filter: invalid regex: {err}"))?,
            }),
            _ => Err(broken()),
        }
    }
}

/// Reads a list of severities.
///
/// # Errors
/// The first word that is none.
pub fn severities(text: &str) -> Result<Vec<Severity>, String> {
    text.split(',').map(|word| word.trim().parse()).collect()
}

/// Reads a part of the day.
///
/// # Errors
/// When it is none.
pub fn calendar(text: &str) -> Result<DailyDuration, String> {
    text.parse()
        .map_err(|err| format!("could not parse schedule: {err}"))
}

/// A matcher.
#[derive(Debug, Clone)]
pub struct Matcher {
    /// Its name.
    pub name: String,
    /// Whether it is not to be asked.
    pub disabled: bool,
    /// To whom notifications go that match.
    pub targets: Vec<String>,
    mode: Mode,
    inverted: bool,
    severities: Vec<Vec<Severity>>,
    fields: Vec<FieldDirective>,
    calendars: Vec<DailyDuration>,
}

impl Matcher {
    /// Reads the properties of a section of `notifications.cfg`.
    ///
    /// # Errors
    /// The first directive that makes no sense.
    pub fn of(name: &str, properties: &Map<String, Value>) -> Result<Self, String> {
        let texts = |key: &str| {
            let values = properties.get(key).and_then(Value::as_array);
            values.into_iter().flatten().filter_map(Value::as_str)
        };
        let is_set = |key: &str| properties.get(key).and_then(Value::as_bool) == Some(true);
        Ok(Self {
            name: name.to_owned(),
            disabled: is_set("disable"),
            targets: texts("target").map(str::to_owned).collect(),
            mode: match properties.get("mode").and_then(Value::as_str) {
                Some("any") => Mode::Any,
                _ => Mode::All,
            },
            inverted: is_set("invert-match"),
            severities: texts("match-severity")
                .map(severities)
                .collect::<Result<_, _>>()?,
            fields: texts("match-field")
                .map(str::parse)
                .collect::<Result<_, _>>()?,
            calendars: texts("match-calendar")
                .map(calendar)
                .collect::<Result<_, _>>()?,
        })
    }

    /// Whether it asks for the kind of a notification.
    fn asks_for(&self, notification: &Notification) -> bool {
        let mut fields = self.fields.iter();
        let is_type = |field: &FieldDirective| {
            let (FieldDirective::Exact { field, .. } | FieldDirective::Pattern { field, .. }) =
                field;
            field == "type"
        };
        !self.inverted && fields.any(|field| is_type(field) && field.matches(notification))
    }

    /// Whether some notification of this severity can match, at some time: what else it asks for is taken to be there.
    #[must_use]
    pub fn can_match(&self, severity: Severity) -> bool {
        let mode = self.mode;
        let fits = (!self.severities.is_empty())
            .then(|| mode.of(self.severities.iter().map(|list| list.contains(&severity))));
        // Fields and times can be as they are wanted, and otherwise.
        let has_others = !self.fields.is_empty() || !self.calendars.is_empty();
        match (mode, self.inverted, fits) {
            (_, _, None) => true,
            (Mode::All, false, Some(fits)) => fits,
            (Mode::All, true, Some(fits)) => !fits || has_others,
            (Mode::Any, false, Some(fits)) => fits || has_others,
            (Mode::Any, true, Some(fits)) => !fits,
        }
    }

    /// Whether a notification of this local moment matches.
    #[must_use]
    pub fn matches(&self, notification: &Notification, local: DateTime) -> bool {
        let mode = self.mode;
        let severity = (!self.severities.is_empty()).then(|| {
            let severity = &notification.severity;
            mode.of(self.severities.iter().map(|list| list.contains(severity)))
        });
        let fields = (!self.fields.is_empty())
            .then(|| mode.of(self.fields.iter().map(|field| field.matches(notification))));
        let calendars = (!self.calendars.is_empty())
            .then(|| mode.of(self.calendars.iter().map(|part| part.contains(local))));
        let mut groups = [severity, fields, calendars]
            .into_iter()
            .flatten()
            .peekable();
        groups.peek().is_none() || mode.of(groups) != self.inverted
    }
}

/// The targets that a notification goes to, each once. `zone` is where the days of matchers are.
#[must_use]
pub fn targets(
    matchers: &[Matcher],
    notification: &Notification,
    zone: &TimeZone,
) -> BTreeSet<String> {
    let moment = Timestamp::from_second(notification.time).unwrap_or(Timestamp::UNIX_EPOCH);
    let local = zone.to_datetime(moment);
    let matching = matchers.iter().filter(|matcher| {
        !matcher.disabled
            && matcher.matches(notification, local)
            && (!notification.is_quiet() || matcher.asks_for(notification))
    });
    matching
        .flat_map(|matcher| matcher.targets.iter().cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn matcher(properties: Value) -> Matcher {
        Matcher::of("m", properties.as_object().unwrap()).unwrap()
    }

    /// An error of a GC on `store1`, on a Saturday at noon.
    fn notification() -> Notification {
        let fields = [
            ("type", "gc".to_owned()),
            ("datastore", "store1".to_owned()),
        ];
        Notification::new(1_795_867_200, Severity::Error, "gc-err", json!({}), fields)
    }

    fn matches(properties: Value) -> bool {
        let mut properties = properties;
        properties["target"] = json!(["t"]);
        !targets(&[matcher(properties)], &notification(), &TimeZone::UTC).is_empty()
    }

    #[test]
    fn groups_modes_and_inversion_are_those_of_stock_servers() {
        for (properties, wanted) in [
            (json!({}), true),
            (json!({ "invert-match": true }), true),
            (json!({ "mode": "any", "invert-match": true }), true),
            (json!({ "match-severity": ["error"] }), true),
            (json!({ "match-severity": ["info, error"] }), true),
            (json!({ "match-severity": ["info"] }), false),
            // all: each directive of a group has to match
            (json!({ "match-severity": ["info", "error"] }), false),
            (
                json!({ "match-severity": ["info", "error"], "mode": "any" }),
                true,
            ),
            (json!({ "match-field": ["exact:type=gc,prune"] }), true),
            (json!({ "match-field": ["exact:type=verify, gc"] }), true),
            (json!({ "match-field": ["exact:type=g"] }), false),
            (json!({ "match-field": ["regex:datastore=^store"] }), true),
            (json!({ "match-field": ["regex:datastore=tore"] }), true),
            (json!({ "match-field": ["regex:job-id=.*"] }), false),
            (
                json!({ "match-field": ["regex:job-id=.*"], "invert-match": true }),
                true,
            ),
            (
                json!({ "match-field": ["exact:type=gc"], "match-severity": ["info"] }),
                false,
            ),
            (
                json!({ "match-field": ["exact:type=gc"], "match-severity": ["info"], "mode": "any" }),
                true,
            ),
            (json!({ "match-calendar": ["sat 11-13"] }), true),
            (json!({ "match-calendar": ["mon..fri 8-17"] }), false),
            (
                json!({ "match-calendar": ["mon..fri 8-17"], "mode": "any", "invert-match": true }),
                true,
            ),
        ] {
            assert_eq!(matches(properties.clone()), wanted, "{properties}");
        }
    }

    #[test]
    fn the_default_matcher_takes_all_but_successful_prunes() {
        let default = matcher(json!({
            "match-field": ["exact:type=prune"], "match-severity": ["info"], "invert-match": true, "mode": "all",
            "target": ["mail-to-root"],
        }));
        let is_sent = |severity, kind: &str| {
            let fields = [("type", kind.to_owned())];
            let notification = Notification::new(0, severity, "x", json!({}), fields);
            default.matches(&notification, DateTime::default())
        };
        assert!(is_sent(Severity::Error, "prune"));
        assert!(is_sent(Severity::Info, "gc"));
        assert!(!is_sent(Severity::Info, "prune"));
    }

    #[test]
    fn a_matcher_says_whether_errors_can_ever_match() {
        for (properties, wanted) in [
            (json!({}), true),
            (json!({ "match-severity": ["error"] }), true),
            (json!({ "match-severity": ["info,notice"] }), false),
            (
                json!({ "match-severity": ["info"], "invert-match": true }),
                true,
            ),
            (
                json!({ "match-severity": ["error"], "invert-match": true }),
                false,
            ),
            (
                json!({ "match-severity": ["error"], "match-field": ["exact:type=gc"], "invert-match": true }),
                true,
            ),
            (
                json!({ "match-severity": ["info"], "match-field": ["exact:type=gc"], "mode": "any" }),
                true,
            ),
            (json!({ "match-field": ["exact:type=nosuch"] }), true),
        ] {
            let can = matcher(properties.clone()).can_match(Severity::Error);
            assert_eq!(can, wanted, "{properties}");
        }
    }

    #[test]
    fn each_target_is_told_once_and_disabled_matchers_are_not_asked() {
        let all = [
            matcher(json!({ "target": ["a", "b"] })),
            matcher(json!({ "target": ["b", "c"], "disable": true })),
            matcher(json!({ "target": ["b"] })),
        ];
        let told = targets(&all, &notification(), &TimeZone::UTC);
        assert_eq!(Vec::from_iter(told), ["a", "b"]);
    }

    #[test]
    fn a_backup_that_went_well_is_only_told_to_whom_asks_for_it() {
        let fields = [("type", "backup".to_owned())];
        let success = Notification::new(0, Severity::Info, "backup-ok", json!({}), fields);
        let is_told = |properties: Value| {
            let mut properties = properties;
            properties["target"] = json!(["t"]);
            !targets(&[matcher(properties)], &success, &TimeZone::UTC).is_empty()
        };
        assert!(!is_told(json!({})));
        assert!(!is_told(json!({ "match-severity": ["info"] })));
        assert!(!is_told(
            json!({ "match-field": ["exact:type=prune"], "invert-match": true })
        ));
        assert!(is_told(json!({ "match-field": ["exact:type=backup,gc"] })));
        assert!(is_told(
            json!({ "match-field": ["regex:type=^b"], "match-severity": ["info"] })
        ));
    }

    #[test]
    fn refusals_have_the_texts_of_stock_servers() {
        for (properties, wanted) in [
            (
                json!({ "match-severity": ["bogus"] }),
                "invalid severity bogus",
            ),
            (
                json!({ "match-field": ["bogus"] }),
                "could not apply filter: invalid match-field statement: bogus",
            ),
            (
                json!({ "match-field": ["type=gc"] }),
                "could not apply filter: invalid match-field statement: type=gc",
            ),
            (
                json!({ "match-calendar": ["bogus"] }),
                "could not parse schedule: unable to parse daily duration at 'bogus' - Context(\"weekday\")",
            ),
        ] {
            let error = Matcher::of("m", properties.as_object().unwrap()).unwrap_err();
            assert_eq!(error, wanted);
        }
    }

    proptest! {
        #[test]
        fn no_directive_panics(text in "\\PC{0,40}") {
            let _ = text.parse::<FieldDirective>();
            let _ = severities(&text);
            let _ = calendar(&text);
        }
    }
}
