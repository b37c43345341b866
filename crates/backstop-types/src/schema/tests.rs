#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use proptest::prelude::*;
use serde_json::json;

static DEPTH: Schema = Schema::integer(0, 7);
static KEEP: Schema = Schema::integer(1, i64::MAX);
static KIND: Schema = Schema::words(&["vm", "ct", "host"]);
static ID: Schema = Schema::text(3, 5, Format::Pattern(crate::name::is_safe_id));
static IDS: Schema = Schema::Array {
    items: &ID,
    min: 1,
    max: 2,
};
static SAMPLE: Properties = Properties::new(&[
    Property::optional("max-depth", &DEPTH),
    Property::optional("keep-last", &KEEP),
    Property::optional("dry-run", &Schema::Boolean),
    Property::optional("backup-type", &KIND),
    Property::optional("ids", &IDS),
    Property::required("name", &ID),
]);

fn form(pairs: &[(&str, &str)]) -> Result<Value, String> {
    SAMPLE
        .parse_form(pairs.iter().copied())
        .map(Value::Object)
        .map_err(|e| e.to_string())
}

#[test]
fn form_values_become_typed_values() {
    let values = form(&[
        ("name", "abc"),
        ("ids", "aaa"),
        ("ids", "bbb"),
        ("dry-run", "Yes"),
        ("max-depth", "07"),
    ]);
    assert_eq!(
        values.unwrap(),
        json!({"name": "abc", "ids": ["aaa", "bbb"], "dry-run": true, "max-depth": 7})
    );
}

#[test]
fn each_broken_form_value_has_its_stock_text() {
    for (key, value, text) in [
        ("bogus", "1", "schema does not allow additional properties."),
        ("dry-run", "maybe", "Unable to parse boolean option."),
        ("max-depth", "abc", "invalid digit found in string"),
        (
            "max-depth",
            "99",
            "value must have a maximum value of 7 (got 99)",
        ),
        (
            "keep-last",
            "0",
            "value must have a minimum value of 1 (got 0)",
        ),
        (
            "backup-type",
            "bogus",
            "value 'bogus' is not defined in the enumeration.",
        ),
        ("name", "a", "value must be at least 3 characters long"),
        ("name", "abcdef", "value may only be 5 characters long"),
        ("name", "a/b", "value does not match the regex pattern"),
    ] {
        let mut pairs = vec![(key, value)];
        if key != "name" {
            pairs.push(("name", "abc"));
        }
        assert_eq!(
            form(&pairs).unwrap_err(),
            format!("parameter verification failed - '{key}': {text}")
        );
    }
}

#[test]
fn missing_repeated_and_several_errors_are_reported() {
    assert_eq!(
        form(&[]).unwrap_err(),
        "parameter verification failed - 'name': parameter is missing and it is not optional."
    );
    assert_eq!(
        form(&[("name", "abc"), ("name", "abd")]).unwrap_err(),
        "parameter verification failed - 'name': duplicate parameter."
    );
    assert_eq!(
        form(&[
            ("name", "abc"),
            ("ids", "aaa"),
            ("ids", "aab"),
            ("ids", "aac")
        ])
        .unwrap_err(),
        "parameter verification failed - 'ids': array may only contain 2 elements"
    );
    assert_eq!(
        form(&[("name", "abc"), ("dry-run", "x"), ("bogus", "")]).unwrap_err(),
        "parameter verification failed:\n- 'dry-run': Unable to parse boolean option.\n- 'bogus': schema does not allow additional properties."
    );
}

#[test]
fn json_values_must_have_their_type() {
    let check = |value: Value| match value {
        Value::Object(map) => SAMPLE
            .verify_json(map)
            .map(|_| ())
            .map_err(|e| e.to_string()),
        _ => unreachable!(),
    };
    assert_eq!(
        check(json!({"name": "abc", "dry-run": true, "keep-last": 1, "ids": ["abc"]})),
        Ok(())
    );
    assert_eq!(
        check(json!({"name": "abc", "dry-run": "true", "keep-last": "1"})).unwrap_err(),
        "parameter verification failed:\n- 'dry-run': Expected boolean value.\n- 'keep-last': Expected integer value."
    );
    for (value, text) in [
        (json!({"name": 1}), "'name': Expected string value."),
        (
            json!({"name": "abc", "ids": "abc"}),
            "'ids': Expected array - got scalar value.",
        ),
        (
            json!({"name": "abc", "ids": {}}),
            "'ids': Expected array - got object.",
        ),
        (
            json!({"name": "abc", "ids": []}),
            "'ids': array must contain at least 1 elements",
        ),
        (
            json!({"name": "abc", "keep-last": 1.5}),
            "'keep-last': Expected integer value.",
        ),
    ] {
        assert_eq!(
            check(value).unwrap_err(),
            format!("parameter verification failed - {text}")
        );
    }
}

#[test]
fn property_strings_report_as_stock_does() {
    let parse = |text| SAMPLE.with_default_key("name").parse_property_string(text);
    assert_eq!(
        Value::Object(parse("abc,max-depth=3").unwrap()),
        json!({"name": "abc", "max-depth": 3})
    );
    for (text, error) in [
        (
            "abc,bogus=1",
            "parameter verification failed - 'bogus': schema does not allow additional properties",
        ),
        (
            "abc,keep-last=0",
            "parameter verification failed - 'keep-last': schema validation failed: value must have a minimum value of 1 (got 0)",
        ),
        (
            "max-depth=1",
            "parameter verification failed - 'name': property is missing and it is not optional",
        ),
    ] {
        assert_eq!(parse(text).unwrap_err(), error);
    }
}

proptest! {
    #[test]
    fn what_is_read_from_text_passes_as_json(text in "\\PC{0,12}") {
        for schema in [&DEPTH, &KEEP, &KIND, &ID, &IDS, &Schema::Boolean, &Schema::Number { min: 0.0, max: 5.0 }] {
            if let Ok(value) = schema.parse_text(&text) {
                prop_assert_eq!(schema.verify(&value), Ok(()));
            }
        }
    }
}
