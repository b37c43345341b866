//! Attestation objects: how a browser hands a new credential over.

use minicbor::Decoder;

use super::SecondFactorError;

/// What vouches for a new credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttestationFormat {
    /// Nothing.
    None,
    /// The credential itself (`packed` without certificates).
    SelfSigned {
        /// COSE number of the algorithm.
        algorithm: i64,
        /// Signature over authenticator data and hash of the client data.
        signature: Vec<u8>,
    },
    /// A maker's certificate, in whatever form. Nobody asked for it.
    Other,
}

/// A parsed attestation object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationObject {
    /// What vouches for the credential.
    pub format: AttestationFormat,
    /// The bytes of the authenticator data.
    pub authenticator_data: Vec<u8>,
}

impl AttestationObject {
    /// Parses CBOR; nothing may follow.
    ///
    /// # Errors
    /// When it is not an attestation object.
    pub fn parse(bytes: &[u8]) -> Result<Self, SecondFactorError> {
        let wrong = |reason| SecondFactorError::new("attestation object", reason);
        let mut decoder = Decoder::new(bytes);
        let (mut name, mut statement, mut data) = (None, None, None);
        let members = members(&mut decoder, |key, decoder| {
            match key {
                "fmt" => name = Some(decoder.str()?),
                "authData" => data = Some(decoder.bytes()?),
                "attStmt" => {
                    let start = decoder.position();
                    decoder.skip()?;
                    statement = bytes.get(start..decoder.position());
                }
                _ => decoder.skip()?,
            }
            Ok(())
        });
        members.map_err(|_| wrong("it is not CBOR of that form"))?;
        if decoder.position() != bytes.len() {
            return Err(wrong("something follows it"));
        }
        let name = name.ok_or(wrong("it names no format"))?;
        let statement = statement.ok_or(wrong("it has no statement"))?;
        let format = match name {
            "none" => AttestationFormat::None,
            "packed" => packed(statement).map_err(|_| wrong("the statement is malformed"))?,
            _ => AttestationFormat::Other,
        };
        Ok(Self {
            format,
            authenticator_data: data.ok_or(wrong("it has no authenticator data"))?.to_vec(),
        })
    }
}

fn packed(statement: &[u8]) -> Result<AttestationFormat, minicbor::decode::Error> {
    let (mut algorithm, mut signature, mut has_certificate) = (None, None, false);
    members(&mut Decoder::new(statement), |key, decoder| {
        match key {
            "alg" => algorithm = Some(decoder.i64()?),
            "sig" => signature = Some(decoder.bytes()?.to_vec()),
            key => {
                has_certificate |= matches!(key, "x5c" | "ecdaaKeyId");
                decoder.skip()?;
            }
        }
        Ok(())
    })?;
    match (algorithm, signature, has_certificate) {
        (_, _, true) => Ok(AttestationFormat::Other),
        (Some(algorithm), Some(signature), false) => Ok(AttestationFormat::SelfSigned {
            algorithm,
            signature,
        }),
        _ => Err(minicbor::decode::Error::message("no signature")),
    }
}

/// Goes through a map with text keys.
fn members<'b>(
    decoder: &mut Decoder<'b>,
    mut each: impl FnMut(&'b str, &mut Decoder<'b>) -> Result<(), minicbor::decode::Error>,
) -> Result<(), minicbor::decode::Error> {
    let count = decoder
        .map()?
        .ok_or_else(|| minicbor::decode::Error::message("indefinite length"))?;
    for _ in 0..count {
        let key = decoder.str()?;
        each(key, decoder)?;
    }
    Ok(())
}
