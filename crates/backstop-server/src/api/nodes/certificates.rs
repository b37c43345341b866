//! `/nodes/{node}/certificates`: the server's certificate.

use backstop_types::Privileges;
use base64::Engine;
use serde_json::{Value, json};
use x509_parser::prelude::*;
use x509_parser::public_key::PublicKey;

use crate::http::{ApiError, Reply};
use crate::router::schema::NODE_NAME;
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::tls::Certificate;

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    vec![Endpoint {
        method: Method::Get,
        path: "/nodes/{node}/certificates/info",
        about: "Describes the certificate in use.",
        params: &[NODE_NAME],
        permission: Permission::all("/system/certificates", Privileges::SYS_MODIFY),
        handler: Handler::blocking(info),
    }]
}

fn info(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    Reply::data(&[describe(&context.server().certificates().current())?])
}

/// What is said about a certificate.
///
/// # Errors
/// When it is not a certificate.
pub fn describe(certificate: &Certificate) -> Result<Value, ApiError> {
    let (_, parsed) = X509Certificate::from_der(certificate.leaf_der())
        .map_err(|err| ApiError::bad_request(format!("unable to parse the certificate - {err}")))?;
    let key = parsed.public_key();
    let (kind, bits) = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => ("rsaEncryption", Some(rsa.key_size())),
        Ok(PublicKey::EC(point)) => ("id-ecPublicKey", Some(point.key_size())),
        _ => ("unknown", None),
    };
    let mut info = json!({
        "filename": "proxy.pem",
        "subject": name(parsed.subject()),
        "issuer": name(parsed.issuer()),
        "san": alternative_names(&parsed),
        "notbefore": parsed.validity().not_before.timestamp(),
        "notafter": parsed.validity().not_after.timestamp(),
        "pem": pem(certificate.leaf_der()),
        "public-key-type": kind,
        "fingerprint": certificate.fingerprint().to_string(),
    });
    if let Some(bits) = bits {
        info["public-key-bits"] = json!(bits);
    }
    Ok(info)
}

/// `O = …, OU = …, CN = …`.
fn name(name: &X509Name<'_>) -> String {
    let registry = x509_parser::objects::oid_registry();
    name.iter_attributes()
        .map(|attribute| {
            let key = x509_parser::objects::oid2abbrev(attribute.attr_type(), registry)
                .map_or_else(|_| attribute.attr_type().to_id_string(), str::to_owned);
            format!("{key} = {}", attribute.as_str().unwrap_or("?"))
        })
        .collect::<Vec<_>>()
        .join(", ")
}

/// The host names that the certificate is for; addresses are left out, as by a stock server.
fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = extension.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        })
        .collect()
}

fn pem(der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    for (position, character) in text.chars().enumerate() {
        if position > 0 && position % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END CERTIFICATE-----\n");
    pem
}
