//! The form of the log for machines: one JSON object a line. No key comes twice, whatever an event calls its fields.

use std::fmt;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event with the fields that it has, and with the spans that it happens in.
pub(super) struct Lines;

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Map::new();
        put(
            &mut line,
            "timestamp",
            format!("{:.6}", jiff::Timestamp::now()),
        );
        put(&mut line, "level", event.metadata().level().as_str());
        put(&mut line, "target", event.metadata().target());
        let spans: Vec<Value> = context
            .event_scope()
            .into_iter()
            .flat_map(|scope| scope.from_root())
            .map(|span| {
                let mut shown = Map::new();
                put(&mut shown, "name", span.name());
                let extensions = span.extensions();
                let fields = extensions.get::<FormattedFields<JsonFields>>();
                let fields = fields.and_then(|fields| serde_json::from_str(&fields.fields).ok());
                for (key, value) in fields.unwrap_or_else(Map::new) {
                    put(&mut shown, &key, value);
                }
                Value::Object(shown)
            })
            .collect();
        if let Some(innermost) = spans.last() {
            put(&mut line, "span", innermost.clone());
            put(&mut line, "spans", spans);
        }
        event.record(&mut Fields(&mut line));
        writeln!(writer, "{}", Value::Object(line))
    }
}

/// Adds a value, under another key where this one is taken.
fn put(line: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    let mut key = key.to_owned();
    while line.contains_key(&key) {
        key.push('_');
    }
    line.insert(key, value.into());
}

/// Takes the fields of an event into a line.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        put(self.0, name.strip_prefix("r#").unwrap_or(name), value);
    }
}

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing_subscriber::fmt::layer;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    /// What was written.
    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn fields_with_the_names_of_others_are_kept_beside_them() {
        let written = Written::default();
        let writer = written.clone();
        let layer = layer()
            .json()
            .event_format(Lines)
            .with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("outer", name = "n", id = 7);
            span.in_scope(|| tracing::warn!(target = "mine", level = 3, span = true, "said {}", 1));
        });
        let text = String::from_utf8(written.0.lock().clone()).unwrap();
        assert_eq!(text.matches('\n').count(), 1, "{text}");
        let line: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "said 1");
        assert_eq!(
            (&line["level"], &line["level_"]),
            (&"WARN".into(), &3.into())
        );
        assert_eq!(line["target_"], "mine");
        assert_eq!(line["span_"], true);
        assert_eq!(line["span"]["name"], "outer");
        assert_eq!(line["spans"][0]["name_"], "n");
        assert_eq!(line["spans"][0]["id"], 7);
        // Each key is written once; the parser would take the last one without a word.
        for key in ["target", "level", "span", "timestamp", "message"] {
            assert_eq!(
                text.matches(&format!("\"{key}\":")).count(),
                1,
                "{key}: {text}"
            );
        }
    }
}
