//! Rules for parameters that many endpoints share, beside those of `backstop_types::config_schema`.

use backstop_types::config_schema::value;
use backstop_types::schema::{Property, Schema};

/// `true` or `false`.
pub static BOOLEAN: Schema = Schema::Boolean;
/// Any whole number.
pub static INTEGER: Schema = Schema::integer(i64::MIN, i64::MAX);
/// A host name.
pub static NODE: Schema = Schema::pattern(is_host_name);

/// The optional `digest` of calls that change a configuration.
pub const DIGEST: Property = Property::optional("digest", &value::DIGEST);
/// The node in a path, which is not looked at any further.
pub const NODE_NAME: Property = Property::required("node", &NODE);

fn is_host_name(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    })
}
