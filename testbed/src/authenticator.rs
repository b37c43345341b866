//! A security key in software, with the browser in front of it: answers WebAuthn challenges as the web interface does.
//!
//! It is no part of what it tests: it builds its bytes itself, and each of them can be bent to see it refused.

use anyhow::{Context, Result, bail};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use minicbor::Encoder;
use serde_json::{Value, json};

/// The algorithms that it can use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// ECDSA with P-256.
    Es256,
    /// Ed25519.
    EdDsa,
    /// RSA with 2048 bits.
    Rs256,
}

enum Pair {
    Es256(EcdsaKeyPair),
    EdDsa(Ed25519KeyPair),
    Rs256(RsaKeyPair),
}

/// A security key that holds one credential, and whose every answer can be bent.
pub struct Authenticator {
    pair: Pair,
    /// The id of its credential.
    pub credential_id: Vec<u8>,
    /// How often it signed.
    pub counter: u32,
    /// Whether it counts that.
    pub counts: bool,
    /// The site that the browser says it is on.
    pub origin: String,
    /// The relying party that it believes to answer, when not the one that asks.
    pub rp_id: Option<String>,
    /// Whether somebody touches it.
    pub touched: bool,
    /// Whether it signs its own registration.
    pub self_attested: bool,
    /// Whether the page is inside one of another site.
    pub cross_origin: bool,
    /// Backup flags: whether the credential can be copied, and whether it was.
    pub backup: (bool, bool),
}

impl Authenticator {
    /// A new key, on a site.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn new(algorithm: Algorithm, origin: &str) -> Result<Self> {
        let failed = || format!("making a key for {algorithm:?}");
        let pair = match algorithm {
            Algorithm::Es256 => Pair::Es256(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).with_context(failed)?,
            ),
            Algorithm::EdDsa => Pair::EdDsa(Ed25519KeyPair::generate().with_context(failed)?),
            Algorithm::Rs256 => Pair::Rs256(
                RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).with_context(failed)?,
            ),
        };
        let mut id = [0; 24];
        aws_lc_rs::rand::fill(&mut id)?;
        Ok(Self::of(pair, id.to_vec(), origin))
    }

    /// A key that was used before.
    ///
    /// # Errors
    /// When the text is no such key.
    pub fn restore(kept: &Value, origin: &str) -> Result<Self> {
        let bytes = |name: &str| -> Result<Vec<u8>> {
            let text = kept[name].as_str().context("no such part")?;
            Ok(URL_SAFE_NO_PAD.decode(text)?)
        };
        let key = bytes("key")?;
        let pair = match kept["algorithm"].as_str() {
            Some("ES256") => Pair::Es256(EcdsaKeyPair::from_pkcs8(
                &ECDSA_P256_SHA256_ASN1_SIGNING,
                &key,
            )?),
            Some("EdDSA") => Pair::EdDsa(Ed25519KeyPair::from_pkcs8(&key)?),
            Some("RS256") => Pair::Rs256(RsaKeyPair::from_pkcs8(&key)?),
            other => bail!("unknown algorithm {other:?}"),
        };
        let mut restored = Self::of(pair, bytes("id")?, origin);
        restored.counter = u32::try_from(kept["counter"].as_u64().unwrap_or(0))?;
        Ok(restored)
    }

    /// What [`Self::restore`] needs. It holds the private key.
    ///
    /// # Errors
    /// When the key cannot be written.
    pub fn keep(&self) -> Result<Value> {
        let (algorithm, key) = match &self.pair {
            Pair::Es256(pair) => ("ES256", pair.to_pkcs8v1()?.as_ref().to_vec()),
            Pair::EdDsa(pair) => ("EdDSA", pair.to_pkcs8()?.as_ref().to_vec()),
            Pair::Rs256(pair) => (
                "RS256",
                AsDer::<Pkcs8V1Der>::as_der(pair)?.as_ref().to_vec(),
            ),
        };
        Ok(json!({
            "algorithm": algorithm,
            "id": encode(&self.credential_id),
            "key": encode(&key),
            "counter": self.counter,
        }))
    }

    fn of(pair: Pair, credential_id: Vec<u8>, origin: &str) -> Self {
        Self {
            pair,
            credential_id,
            counter: 0,
            counts: true,
            origin: origin.to_owned(),
            rp_id: None,
            touched: true,
            self_attested: false,
            cross_origin: false,
            backup: (false, false),
        }
    }

    /// Answers the options of a registration (`{"publicKey": …}`) with the credential's JSON.
    ///
    /// # Errors
    /// When the options are not such, or do not allow its algorithm.
    pub fn register(&mut self, options: &Value) -> Result<Value> {
        let options = &options["publicKey"];
        let number = match self.pair {
            Pair::Es256(_) => -7,
            Pair::EdDsa(_) => -8,
            Pair::Rs256(_) => -257,
        };
        let offered = options["pubKeyCredParams"].as_array();
        if !offered.is_some_and(|all| all.iter().any(|one| one["alg"] == number)) {
            bail!("the algorithm {number} is not offered: {options}");
        }
        let own = encode(&self.credential_id);
        let excluded = options["excludeCredentials"].as_array();
        if excluded.is_some_and(|all| all.iter().any(|one| one["id"] == own.as_str())) {
            bail!("this key is registered already");
        }
        let rp_id = options["rp"]["id"].as_str().context("no relying party")?;
        let mut data = self.data(rp_id, 0x40);
        // The model, which is not told.
        data.extend([0; 16]);
        data.extend(u16::try_from(self.credential_id.len())?.to_be_bytes());
        data.extend(&self.credential_id);
        data.extend(self.cose_key()?);
        let client_data = self.client_data("webauthn.create", &options["challenge"])?;
        let mut object = Vec::new();
        let mut encoder = Encoder::new(&mut object);
        encoder.map(3)?.str("fmt")?;
        if self.self_attested {
            let signature = self.sign(&data, &client_data)?;
            encoder.str("packed")?.str("attStmt")?.map(2)?;
            encoder.str("alg")?.i32(number)?;
            encoder.str("sig")?.bytes(&signature)?;
        } else {
            encoder.str("none")?.str("attStmt")?.map(0)?;
        }
        encoder.str("authData")?.bytes(&data)?;
        Ok(json!({
            "id": own,
            "rawId": own,
            "type": "public-key",
            "response": {
                "attestationObject": encode(&object),
                "clientDataJSON": encode(&client_data),
            },
        }))
    }

    /// Answers the options of a login (`{"publicKey": …}`) as the web interface sends it.
    ///
    /// # Errors
    /// When the options are not such, or its credential is not asked for.
    pub fn authenticate(&mut self, options: &Value) -> Result<Value> {
        let options = &options["publicKey"];
        let own = encode(&self.credential_id);
        let allowed = options["allowCredentials"].as_array();
        if !allowed.is_some_and(|all| all.iter().any(|one| one["id"] == own.as_str())) {
            bail!("this key is not asked for");
        }
        let rp_id = options["rpId"].as_str().context("no relying party")?;
        self.counter += u32::from(self.counts);
        let data = self.data(rp_id, 0);
        let client_data = self.client_data("webauthn.get", &options["challenge"])?;
        let signature = self.sign(&data, &client_data)?;
        Ok(json!({
            "id": own,
            "rawId": own,
            "type": "public-key",
            "challenge": options["challenge"],
            "response": {
                "authenticatorData": encode(&data),
                "clientDataJSON": encode(&client_data),
                "signature": encode(&signature),
            },
        }))
    }

    fn data(&self, rp_id: &str, flags: u8) -> Vec<u8> {
        let rp_id = self.rp_id.as_deref().unwrap_or(rp_id);
        let mut data = digest(&SHA256, rp_id.as_bytes()).as_ref().to_vec();
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let backup = flag(self.backup.0, 0x08) | flag(self.backup.1, 0x10);
        data.push(flags | flag(self.touched, 0x01) | backup);
        data.extend(self.counter.to_be_bytes());
        data
    }

    fn client_data(&self, ceremony: &str, challenge: &Value) -> Result<Vec<u8>> {
        let challenge = challenge.as_str().context("no challenge")?;
        let text = json!({
            "type": ceremony,
            "challenge": challenge,
            "origin": self.origin,
            "crossOrigin": self.cross_origin,
        });
        Ok(text.to_string().into_bytes())
    }

    fn sign(&self, data: &[u8], client_data: &[u8]) -> Result<Vec<u8>> {
        let message = [data, digest(&SHA256, client_data).as_ref()].concat();
        let random = SystemRandom::new();
        Ok(match &self.pair {
            Pair::Es256(pair) => pair.sign(&random, &message)?.as_ref().to_vec(),
            Pair::EdDsa(pair) => pair.sign(&message).as_ref().to_vec(),
            Pair::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, &message, &mut signature)?;
                signature
            }
        })
    }

    fn cose_key(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let mut encoder = Encoder::new(&mut bytes);
        match &self.pair {
            Pair::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = (point.get(1..33), point.get(33..65));
                let (x, y) = x.zip(y).context("not an uncompressed point")?;
                encoder.map(5)?.u8(1)?.u8(2)?.u8(3)?.i8(-7)?;
                encoder.i8(-1)?.u8(1)?.i8(-2)?.bytes(x)?.i8(-3)?.bytes(y)?;
            }
            Pair::EdDsa(pair) => {
                encoder.map(4)?.u8(1)?.u8(1)?.u8(3)?.i8(-8)?;
                encoder.i8(-1)?.u8(6)?;
                encoder.i8(-2)?.bytes(pair.public_key().as_ref())?;
            }
            Pair::Rs256(pair) => {
                let key = pair.public_key();
                encoder.map(4)?.u8(1)?.u8(3)?.u8(3)?.i16(-257)?;
                let modulus = key.modulus().big_endian_without_leading_zero();
                let exponent = key.exponent().big_endian_without_leading_zero();
                encoder.i8(-1)?.bytes(modulus)?.i8(-2)?.bytes(exponent)?;
            }
        }
        Ok(bytes)
    }
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The one-time password of a secret (SHA-1, 6 digits, 30 seconds) at a time step.
#[must_use]
pub fn one_time_password(secret: &[u8], step: u64) -> String {
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret);
    let tag = aws_lc_rs::hmac::sign(&key, &step.to_be_bytes());
    let bytes = tag.as_ref();
    let offset = usize::from(bytes.last().copied().unwrap_or_default() & 0xf);
    let number = bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk::<4>())
        .map_or(0, |four| u32::from_be_bytes(*four) & 0x7fff_ffff);
    format!("{:06}", number % 1_000_000)
}
