//! What comes from files and settings of notifications: refused, or written and read back, and put into words.
#![no_main]

use backstop_calendar::DailyDuration;
use backstop_notify::matcher::{FieldDirective, severities};
use backstop_notify::repeats::topic;
use backstop_notify::{NamedValue, Notification, Templates};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = text.parse::<DailyDuration>();
    let _ = severities(text);
    if let Ok(directive) = text.parse::<FieldDirective>() {
        assert!(!format!("{directive:?}").is_empty());
    }
    if let Ok(named) = NamedValue::parse(text) {
        let _ = named.decoded();
    }
    let Ok(notification) = serde_json::from_str::<Notification>(text) else {
        return;
    };
    let written = serde_json::to_string(&notification).expect("JSON");
    let read: Notification = serde_json::from_str(&written).expect("what was written");
    assert_eq!(
        (read.id, &read.fields),
        (notification.id, &notification.fields)
    );
    let _ = topic(&notification);
    let rendered = Templates::default().render(&notification);
    assert!(!rendered.subject.contains('\n'));
});
