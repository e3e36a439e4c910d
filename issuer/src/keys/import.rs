//! Keys of a system that is being replaced: PEM in, checked, and as they are kept here.
//!
//! Taken are PKCS#8 (RFC 5208), PKCS#1 (RFC 8017 §A.1) and SEC 1 (RFC 5915) for private keys, SPKI (RFC 5280 §4.1.2.7) and PKCS#1 for public ones.

use countersign_shared::{Algorithm, Jwk, PublicKey, Signature, base64url};
use ed25519_dalek::VerifyingKey;
use p256::elliptic_curve::sec1::ToEncodedPoint as _;
use p256::pkcs8::AssociatedOid as _;
use pem::Pem;
use rsa::pkcs1::DecodeRsaPrivateKey as _;
use rsa::pkcs8::spki::{DecodePublicKey as _, ObjectIdentifier, SubjectPublicKeyInfoRef};
use rsa::pkcs8::{EncodePrivateKey as _, PrivateKeyInfo};
use rsa::{RsaPrivateKey, pkcs1};
use zeroize::Zeroizing;

use super::generate::Generated;
use super::public::{ed25519_jwk, p256_jwk, rsa_jwk};
use super::{SigningKey, check_signature, client};

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// How an imported key is to be used and called.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wishes<'a> {
    /// What it signs with; `None`: what its kind says, RS256 for RSA.
    pub algorithm: Option<Algorithm>,
    /// Its kid; `None`: the RFC 7638 thumbprint.
    pub kid: Option<&'a str>,
}

/// A private key that is what it should be; with `public`, its own other half. The error is a sentence about the keys.
pub fn private(pem: &str, public: Option<&str>, wishes: Wishes<'_>) -> Result<Imported, String> {
    let der = private_der(pem)?;
    let (der, key) = normalize(der)?;
    let generated = name(&key, der, wishes)?;
    let own = signature_holds(&generated, &generated.public_jwk)?;
    let theirs = match public {
        None => true,
        Some(public) => {
            let other = name(&public_key(public)?, Zeroizing::default(), wishes)?;
            signature_holds(&generated, &other.public_jwk)?
        }
    };
    if own && theirs {
        Ok(Imported(generated))
    } else {
        Err("the keys are not a pair: one doesn't verify what the other signs".to_owned())
    }
}

/// A public key by itself. The error is a sentence about it.
pub fn public(pem: &str, wishes: Wishes<'_>) -> Result<Imported, String> {
    Ok(Imported(name(&public_key(pem)?, Zeroizing::default(), wishes)?))
}

/// A key that may be kept.
pub struct Imported(pub(super) Generated);

impl Imported {
    /// What it signs with.
    pub const fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// Without its private part.
    #[must_use]
    pub fn public_part(mut self) -> Self {
        self.0.private = Zeroizing::default();
        self
    }

    /// Whether `jwk` is the same key, whatever it is called.
    pub(super) fn is(&self, jwk: &str) -> bool {
        let parse = |jwk: &str| Jwk::parse(jwk.as_bytes()).ok();
        parse(&self.0.public_jwk).zip(parse(jwk)).is_some_and(|(own, other)| own.public() == other.public())
    }

    /// Its kid.
    pub fn kid(&self) -> &str {
        &self.0.kid
    }
}

impl std::fmt::Debug for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Imported").field("kid", &self.0.kid).finish_non_exhaustive()
    }
}

fn signature_holds(key: &Generated, public_jwk: &str) -> Result<bool, String> {
    let unusable = || "the private key can't sign".to_owned();
    let signing = SigningKey::from_pkcs8(&key.kid, key.algorithm, &key.private).map_err(|_| unusable())?;
    let jws = signing.sign("JWT", b"{}").map_err(|_| unusable())?;
    let (input, signature) = jws.rsplit_once('.').unwrap_or_default();
    let signature = base64url::decode(signature.as_bytes()).unwrap_or_default();
    let public = Jwk::parse(public_jwk.as_bytes()).map_err(|error| error.to_string())?;
    Ok(check_signature(&public, input.as_bytes(), &signature) == Signature::Valid)
}

/// Gives a key its algorithm and its kid, and refuses what isn't strong enough.
fn name(public: &PublicKey, private: Zeroizing<Vec<u8>>, wishes: Wishes<'_>) -> Result<Generated, String> {
    let encode = base64url::encode;
    let algorithm = match (public, wishes.algorithm) {
        (PublicKey::Rsa { .. }, None) => Algorithm::Rs256,
        (PublicKey::Rsa { .. }, Some(algorithm @ (Algorithm::Rs256 | Algorithm::Ps256))) => algorithm,
        (PublicKey::P256 { .. }, None | Some(Algorithm::Es256)) => Algorithm::Es256,
        (PublicKey::Ed25519 { .. }, None | Some(Algorithm::EdDsa)) => Algorithm::EdDsa,
        (_, Some(algorithm)) => {
            return Err(format!("{} doesn't go with a key of that kind", algorithm.as_str()));
        }
    };
    let (thumbprint, jwk) = match public {
        PublicKey::Rsa { n, e } => rsa_jwk(algorithm.as_str(), &encode(n), &encode(e)),
        PublicKey::P256 { x, y } => p256_jwk(&encode(x), &encode(y)),
        PublicKey::Ed25519 { x } => ed25519_jwk(&encode(x)),
    };
    let (kid, public_jwk) = match wishes.kid {
        None => (thumbprint, jwk),
        Some(kid) if is_kid(kid) => {
            // The kid stands before the members that it is made of.
            (kid.to_owned(), jwk.replacen(&thumbprint, kid, 1))
        }
        Some(_) => {
            return Err(
                "the kid must have 1 to 128 visible ASCII characters without `\"` and `\\`".to_owned()
            );
        }
    };
    Jwk::parse(public_jwk.as_bytes()).map_err(|error| format!("the key {}", client::problem(error)))?;
    Ok(Generated { private, kid, algorithm, public_jwk, imported: true })
}

/// It stands in the header of every token, as it is.
fn is_kid(kid: &str) -> bool {
    (1..=128).contains(&kid.len())
        && kid.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
}

enum PrivateDer {
    Pkcs8(Zeroizing<Vec<u8>>),
    Pkcs1(Zeroizing<Vec<u8>>),
    Sec1(Zeroizing<Vec<u8>>),
}

fn private_der(text: &str) -> Result<PrivateDer, String> {
    let block = single(text, "private", |tag| tag.ends_with("PRIVATE KEY"))?;
    let encrypted = block.tag() == "ENCRYPTED PRIVATE KEY" || block.headers().get("Proc-Type").is_some();
    if encrypted {
        return Err("the private key is encrypted: decrypt it first, `openssl pkey -in FILE -out DECRYPTED`"
            .to_owned());
    }
    let tag = block.tag().to_owned();
    let der = Zeroizing::new(block.into_contents());
    match tag.as_str() {
        "PRIVATE KEY" => Ok(PrivateDer::Pkcs8(der)),
        "RSA PRIVATE KEY" => Ok(PrivateDer::Pkcs1(der)),
        "EC PRIVATE KEY" => Ok(PrivateDer::Sec1(der)),
        other => Err(format!(
            "the private key is a PEM block `{other}`: make it a PKCS#8 one, e.g. by `openssl pkey`, or for OpenSSH `ssh-keygen -p -m PKCS8 -f FILE`"
        )),
    }
}

/// The one block that is meant, of a file that may have others.
fn single(text: &str, what: &str, is_meant: impl Fn(&str) -> bool) -> Result<Pem, String> {
    let unreadable = || {
        format!(
            "the {what} key is not PEM (RFC 7468): it begins with -----BEGIN …----- and ends with -----END …-----"
        )
    };
    let blocks = pem::parse_many(text).map_err(|_| unreadable())?;
    let mut meant: Vec<Pem> = Vec::new();
    let mut others: Vec<String> = Vec::new();
    for block in blocks {
        let tag = block.tag().to_owned();
        if is_meant(&tag) {
            meant.push(block);
        } else {
            drop(Zeroizing::new(block.into_contents()));
            others.push(tag);
        }
    }
    match (meant.pop(), meant.len()) {
        (Some(block), 0) => Ok(block),
        (Some(_), _) => Err(format!("there are several {what} keys: give one")),
        (None, _) if others.iter().any(|tag| tag == "CERTIFICATE") => {
            Err("that is a certificate: take its key out, `openssl x509 -in FILE -pubkey -noout`".to_owned())
        }
        (None, _) if others.is_empty() => Err(unreadable()),
        (None, _) => Err(format!("there is no {what} key, but a PEM block `{}`", others.join("`, `"))),
    }
}

/// PKCS#8 as aws-lc-rs takes it, and the public half.
fn normalize(der: PrivateDer) -> Result<(Zeroizing<Vec<u8>>, PublicKey), String> {
    match der {
        PrivateDer::Pkcs1(der) => rsa_private(&der),
        PrivateDer::Sec1(der) => p256_private(&der),
        PrivateDer::Pkcs8(der) => {
            let info = PrivateKeyInfo::try_from(der.as_slice()).map_err(|_| malformed("PKCS#8"))?;
            match info.algorithm.oid {
                RSA => rsa_private(info.private_key),
                EC => {
                    let curve = info.algorithm.parameters_oid().map_err(|_| malformed("PKCS#8"))?;
                    check_curve(curve)?;
                    let key = p256::SecretKey::try_from(info).map_err(|_| malformed("PKCS#8"))?;
                    p256_pair(&key)
                }
                ED25519 => {
                    let key = ed25519_dalek::SigningKey::try_from(info).map_err(|_| malformed("PKCS#8"))?;
                    let der = key.to_pkcs8_der().map_err(|_| malformed("PKCS#8"))?;
                    Ok((der.to_bytes(), PublicKey::Ed25519 { x: key.verifying_key().to_bytes() }))
                }
                other => Err(other_kind(other)),
            }
        }
    }
}

fn rsa_private(der: &[u8]) -> Result<(Zeroizing<Vec<u8>>, PublicKey), String> {
    let numbers = pkcs1::RsaPrivateKey::try_from(der).map_err(|_| malformed("PKCS#1"))?;
    let public = rsa_public(&numbers.public_key())?;
    let key = RsaPrivateKey::from_pkcs1_der(der)
        .and_then(|key| key.validate().map(|()| key).map_err(|_| pkcs1::Error::Crypto))
        .map_err(|_| "the RSA key's numbers don't fit together".to_owned())?;
    let der = key.to_pkcs8_der().map_err(|_| malformed("PKCS#1"))?;
    Ok((der.to_bytes(), public))
}

/// Its strength is checked here, before anything is computed with it.
fn rsa_public(numbers: &pkcs1::RsaPublicKey<'_>) -> Result<PublicKey, String> {
    let (n, e) = (numbers.modulus.as_bytes().to_vec(), numbers.public_exponent.as_bytes().to_vec());
    let public = PublicKey::Rsa { n, e };
    name(&public, Zeroizing::default(), Wishes::default()).map(|_| public)
}

fn p256_private(der: &[u8]) -> Result<(Zeroizing<Vec<u8>>, PublicKey), String> {
    let parsed = sec1::EcPrivateKey::try_from(der).map_err(|_| malformed("SEC 1"))?;
    let curve = parsed.parameters.and_then(sec1::EcParameters::named_curve);
    check_curve(curve.ok_or_else(|| "the private key doesn't say which curve it is on".to_owned())?)?;
    let key = p256::SecretKey::from_sec1_der(der).map_err(|_| malformed("SEC 1"))?;
    p256_pair(&key)
}

fn p256_pair(key: &p256::SecretKey) -> Result<(Zeroizing<Vec<u8>>, PublicKey), String> {
    let der = key.to_pkcs8_der().map_err(|_| malformed("PKCS#8"))?;
    Ok((der.to_bytes(), p256_public(&key.public_key())?))
}

fn p256_public(key: &p256::PublicKey) -> Result<PublicKey, String> {
    let point = key.to_encoded_point(false);
    let coordinates = point.x().zip(point.y()).ok_or_else(|| malformed("SEC 1"))?;
    Ok(PublicKey::P256 { x: (*coordinates.0).into(), y: (*coordinates.1).into() })
}

fn check_curve(curve: ObjectIdentifier) -> Result<(), String> {
    if curve == p256::NistP256::OID {
        return Ok(());
    }
    Err(format!("the key is on another curve (OID {curve}) than P-256, and ES256 takes no other"))
}

fn public_key(text: &str) -> Result<PublicKey, String> {
    let block = single(text, "public", |tag| tag.ends_with("PUBLIC KEY"))?;
    let der = block.contents();
    match block.tag() {
        "RSA PUBLIC KEY" => rsa_public(&pkcs1::RsaPublicKey::try_from(der).map_err(|_| malformed("PKCS#1"))?),
        "PUBLIC KEY" => {
            let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|_| malformed("SPKI"))?;
            match info.algorithm.oid {
                RSA => {
                    let numbers = info.subject_public_key.as_bytes().ok_or_else(|| malformed("SPKI"))?;
                    rsa_public(&pkcs1::RsaPublicKey::try_from(numbers).map_err(|_| malformed("SPKI"))?)
                }
                EC => {
                    check_curve(info.algorithm.parameters_oid().map_err(|_| malformed("SPKI"))?)?;
                    p256_public(&p256::PublicKey::from_public_key_der(der).map_err(|_| malformed("SPKI"))?)
                }
                ED25519 => {
                    let key = VerifyingKey::from_public_key_der(der).map_err(|_| malformed("SPKI"))?;
                    if key.is_weak() {
                        return Err("the Ed25519 key is one that anybody can sign for".to_owned());
                    }
                    Ok(PublicKey::Ed25519 { x: key.to_bytes() })
                }
                other => Err(other_kind(other)),
            }
        }
        other => Err(format!(
            "the public key is a PEM block `{other}`: make it an SPKI one, `openssl pkey -pubin -in FILE`"
        )),
    }
}

fn malformed(form: &str) -> String {
    format!("the key is PEM, and its content is no sound {form} key")
}

fn other_kind(algorithm: ObjectIdentifier) -> String {
    if algorithm == RSA_PSS {
        return "the key is marked as RSASSA-PSS, which may bind it to other parameters than those of PS256: plain RSA keys are taken".to_owned();
    }
    format!("the key is of another kind (OID {algorithm}): RSA, P-256 and Ed25519 keys are taken")
}
