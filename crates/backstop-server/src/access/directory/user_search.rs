//! Which entries of a directory are users, and what of them is wanted.

use backstop_types::config_schema::access::SYNC_ATTRIBUTE_PARTS;
use ldap3::SearchEntry;
use serde_json::{Map, Value};

use super::DirectoryError;
use super::settings::{DirectoryKind, DirectorySettings};

/// Entries of these classes are users unless the realm says otherwise.
const DEFAULT_CLASSES: &str = "inetorgperson,posixaccount,person,user";

/// What is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserSearch {
    /// The attribute that holds the name.
    name: String,
    /// Properties of users with the attributes that hold them.
    attributes: Vec<(&'static str, String)>,
    classes: Vec<String>,
    filter: Option<String>,
}

/// An entry that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryUser {
    /// Where it is in the directory.
    pub dn: String,
    /// Its name, without the realm.
    pub name: String,
    /// Properties of users (`email`, `firstname`, `lastname`) that the entry holds.
    pub properties: Vec<(&'static str, String)>,
}

impl UserSearch {
    /// What a realm's section says of it.
    ///
    /// # Errors
    /// When it cannot be understood.
    pub fn new(
        kind: DirectoryKind,
        properties: &Map<String, Value>,
    ) -> Result<Self, DirectoryError> {
        let text = |key: &str| {
            let value = properties.get(key).and_then(Value::as_str);
            value.map(str::trim).filter(|text| !text.is_empty())
        };
        let mapped = SYNC_ATTRIBUTE_PARTS
            .parse_property_string(text("sync-attributes").unwrap_or_default())
            .map_err(|reason| DirectoryError::Settings(format!("sync-attributes: {reason}")))?;
        let attributes = ["email", "firstname", "lastname"]
            .into_iter()
            .filter_map(|own| Some((own, mapped.get(own)?.as_str()?.trim().to_owned())));
        let attributes: Vec<_> = attributes.filter(|(_, name)| !name.is_empty()).collect();
        let classes = text("user-classes").unwrap_or(DEFAULT_CLASSES);
        let classes = classes.split(|c: char| matches!(c, ',' | ';') || c.is_whitespace());
        let filter = text("filter").map(|filter| {
            if filter.starts_with('(') {
                filter.to_owned()
            } else {
                format!("({filter})")
            }
        });
        if let Some(filter) = &filter
            && ldap3::parse_filter(filter).is_err()
        {
            return Err(DirectoryError::Settings(format!(
                "filter: '{filter}' is not a valid LDAP filter"
            )));
        }
        Ok(Self {
            name: DirectorySettings::new(kind, properties, None).user_attr,
            attributes,
            classes: classes
                .filter(|class| !class.is_empty())
                .map(str::to_owned)
                .collect(),
            filter,
        })
    }

    /// The filter: what the realm asks for, with a name, of one of the classes.
    pub(super) fn filter(&self) -> String {
        let own = self.filter.as_deref().unwrap_or_default();
        let classes: String = self
            .classes
            .iter()
            .map(|class| format!("(objectClass={})", ldap3::ldap_escape(class.as_str())))
            .collect();
        format!("(&{own}({}=*)(|{classes}))", self.name)
    }

    /// The attributes to ask for.
    pub(super) fn wanted(&self) -> Vec<String> {
        let others = self.attributes.iter().map(|(_, name)| name);
        std::iter::once(&self.name).chain(others).cloned().collect()
    }

    /// What is wanted of an entry; `None` when it has no name that is a text.
    pub(super) fn user(&self, entry: SearchEntry) -> Option<DirectoryUser> {
        let first = |wanted: &str| {
            // Servers write the names of attributes as they like.
            let mut found = entry
                .attrs
                .iter()
                .filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
            found.find_map(|(_, values)| values.first().cloned())
        };
        let properties = self.attributes.iter();
        let properties = properties.filter_map(|(own, name)| Some((*own, first(name)?)));
        Some(DirectoryUser {
            name: first(&self.name)?,
            properties: properties.collect(),
            dn: entry.dn.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn search(properties: Value) -> Result<UserSearch, String> {
        let properties = properties.as_object().unwrap();
        UserSearch::new(DirectoryKind::Ldap, properties).map_err(|err| err.to_string())
    }

    #[test]
    fn the_filter_asks_for_all_that_the_realm_asks_for() {
        let plain = search(json!({"user-attr": "uid"})).unwrap();
        assert_eq!(
            plain.filter(),
            "(&(uid=*)(|(objectClass=inetorgperson)(objectClass=posixaccount)(objectClass=person)(objectClass=user)))"
        );
        let full = search(json!({
            "user-attr": "cn", "filter": "memberOf=cn=backup,dc=x", "user-classes": "person; user",
            "sync-attributes": "email=mail,lastname=sn"
        }))
        .unwrap();
        assert_eq!(
            full.filter(),
            "(&(memberOf=cn=backup,dc=x)(cn=*)(|(objectClass=person)(objectClass=user)))"
        );
        assert_eq!(full.wanted(), ["cn", "mail", "sn"]);
        let bad = search(json!({"user-attr": "cn", "filter": "(&(a=b)"})).unwrap_err();
        assert!(bad.contains("not a valid LDAP filter"), "{bad}");
    }

    #[test]
    fn attributes_are_found_however_the_server_writes_them() {
        let search = search(json!({"user-attr": "UID", "sync-attributes": "email=Mail"})).unwrap();
        let entry = SearchEntry {
            dn: "uid=a,dc=x".to_owned(),
            attrs: [
                ("uid".to_owned(), vec!["a".to_owned(), "b".to_owned()]),
                ("mail".to_owned(), vec!["a@x".to_owned()]),
            ]
            .into(),
            bin_attrs: Default::default(),
        };
        let user = search.user(entry.clone()).unwrap();
        assert_eq!(
            (user.name.as_str(), user.properties),
            ("a", vec![("email", "a@x".to_owned())])
        );
        let nameless = SearchEntry {
            attrs: Default::default(),
            ..entry
        };
        assert_eq!(search.user(nameless), None);
    }

    proptest! {
        #[test]
        fn no_settings_panic_and_accepted_ones_make_valid_filters(
            filter in "\\PC{0,20}", classes in "[a-z,; *()]{0,20}", attributes in "\\PC{0,20}"
        ) {
            let made = search(json!({
                "user-attr": "uid", "filter": filter, "user-classes": classes, "sync-attributes": attributes
            }));
            if let Ok(made) = made && !made.classes.is_empty() {
                prop_assert!(ldap3::parse_filter(made.filter()).is_ok());
            }
        }
    }
}
