//! Realms, as the login dialogue lists them.

use backstop_types::Realm;
use backstop_types::record::DomainItem;
use serde_json::Value;

use crate::config::{ConfigError, ConfigStore, SectionFile};

/// The realms that every server has, with the comments that lists show.
const BUILT_IN: [(&str, &str); 2] = [
    ("pam", "Linux PAM standard authentication"),
    ("pbs", "Proxmox Backup authentication server"),
];

/// All realms. `pam` and `pbs` are there without an entry, too; `pam` is proposed when no other
/// realm is.
///
/// # Errors
/// When the configuration cannot be read.
pub fn list(config: &ConfigStore) -> Result<Vec<DomainItem>, ConfigError> {
    let domains = config.sections(SectionFile::Domains)?;
    let mut items = Vec::new();
    for (id, comment) in BUILT_IN {
        if domains.data.get(id).is_none() {
            items.extend(item(id, id, None, Some(comment)));
        }
    }
    for (id, section) in domains.data.iter() {
        let default = section.properties.get("default").and_then(Value::as_bool);
        let comment = section.properties.get("comment").and_then(Value::as_str);
        items.extend(item(id, section.ty, default, comment));
    }
    if !items.iter().any(|item| item.default == Some(true))
        && let Some(pam) = items.iter_mut().find(|item| item.realm.as_str() == "pam")
    {
        pam.default = Some(true);
    }
    Ok(items)
}

fn item(id: &str, kind: &str, default: Option<bool>, comment: Option<&str>) -> Option<DomainItem> {
    Some(DomainItem {
        realm: id.parse::<Realm>().ok()?,
        kind: kind.to_string(),
        default,
        comment: comment.map(str::to_string),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use crate::access::control::tests::setup;

    #[test]
    fn realms_equal_the_captures() {
        for (version, capture) in [("pbs-3.2.4", "053-domains"), ("pbs-4.2.3", "486-domains")] {
            let path = format!(
                "{}/../../tests/fixtures/{version}/rest/{capture}.json",
                env!("CARGO_MANIFEST_DIR")
            );
            let capture: Value =
                serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            let body: Value = serde_json::from_str(capture["body"].as_str().unwrap()).unwrap();
            let sorted = |mut items: Vec<Value>| {
                items.sort_by_key(ToString::to_string);
                items
            };
            let setup = setup(version);
            let own = list(setup.access.config()).unwrap();
            let own = own
                .iter()
                .map(|item| serde_json::to_value(item).unwrap())
                .collect();
            assert_eq!(
                sorted(own),
                sorted(body["data"].as_array().unwrap().clone())
            );
        }
    }
}
