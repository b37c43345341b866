//! `/nodes/{node}/certificates`: the server's certificate, and its change.

use backstop_types::Privileges;
use backstop_types::schema::{Format, Property, Schema};
use serde_json::{Value, json};
use x509_parser::prelude::*;
use x509_parser::public_key::PublicKey;

use crate::api::backstop::certificate::{GRACE, grace, refused};
use crate::certificate_change::{self, CertificatePair};
use crate::http::{ApiError, Reply};
use crate::router::schema::{BOOLEAN, NODE_NAME};
use crate::router::{Endpoint, Handler, Method, Params, Permission, RequestContext};
use crate::tls::{Certificate, pem_of};

/// Certificates or a key; a body with them is not larger.
static PEM: Schema = Schema::text(1, 512 * 1024, Format::Any);
const RESTART: Property = Property::optional("restart", &BOOLEAN);
const UPLOAD: &[Property] = &[
    NODE_NAME,
    Property::required("certificates", &PEM),
    Property::optional("key", &PEM),
    RESTART,
    Property::optional("force", &BOOLEAN),
    GRACE,
];
const RENEW: &[Property] = &[NODE_NAME, RESTART, GRACE];

/// The endpoints of this room.
pub fn endpoints() -> Vec<Endpoint> {
    const CUSTOM: &str = "/nodes/{node}/certificates/custom";
    let endpoint = |method, path, about, params, handler| Endpoint {
        method,
        path,
        about,
        params,
        permission: Permission::all("/system/certificates", Privileges::SYS_MODIFY),
        handler: Handler::blocking(handler),
    };
    vec![
        endpoint(
            Method::Get,
            "/nodes/{node}/certificates/info",
            "Describes the certificate in use, and the one that is announced.",
            &[NODE_NAME],
            info as fn(&RequestContext, &Params) -> Result<Reply, ApiError>,
        ),
        endpoint(
            Method::Post,
            CUSTOM,
            "Announces a certificate, which is used when its time of announcement is over.",
            UPLOAD,
            upload,
        ),
        endpoint(
            Method::Delete,
            CUSTOM,
            "Announces a new certificate that signs itself.",
            RENEW,
            renew,
        ),
    ]
}

fn info(context: &RequestContext, _: &Params) -> Result<Reply, ApiError> {
    let server = context.server();
    let current = server.certificates().current();
    let mut list = vec![describe(&current)?];
    if let Some(next) = certificate_change::next(server.config()).map_err(refused)?
        && next.certificate.fingerprint() != current.fingerprint()
    {
        let mut info = describe(&next.certificate)?;
        info["filename"] = "backstop-next-certificate.json".into();
        info["switch-at"] = next.switch_at.into();
        list.push(info);
    }
    Reply::data(&list)
}

fn upload(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let certificates = params.required_text("certificates")?;
    let config = context.server().config();
    let pair = CertificatePair::of(config, certificates, params.text("key")).map_err(refused)?;
    change(context, params, &pair)?;
    info(context, params)
}

fn renew(context: &RequestContext, params: &Params) -> Result<Reply, ApiError> {
    let pair = CertificatePair::self_signed(context.server().node());
    let pair = pair.map_err(|err| refused(err.into()))?;
    change(context, params, &pair)?;
    Ok(Reply::null())
}

fn change(
    context: &RequestContext,
    params: &Params,
    pair: &CertificatePair,
) -> Result<(), ApiError> {
    let (server, grace) = (context.server(), grace(params)?);
    certificate_change::announce(server.config(), pair, grace).map_err(refused)?;
    server
        .use_certificate_files()
        .map_err(|err| refused(err.into()))?;
    Ok(())
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
        "pem": pem_of(certificate.leaf_der()),
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
