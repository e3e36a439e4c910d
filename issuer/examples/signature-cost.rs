//! For `bin/bench issuer`: what a signature costs by itself, with the library that the issuer signs with and a key that is held. `signature-cost MS`
//! signs for so many milliseconds with each algorithm, and prints a line for each: its name, and the nanoseconds of CPU that a signature took.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};
use std::{fs, io};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};

type Failure = Box<dyn Error + Send + Sync>;

/// As long as header and claims of a token are, in base64url.
const MESSAGE: [u8; 700] = [b'a'; 700];
/// Signatures between two looks at the clock.
const BATCH: u32 = 16;

fn main() -> Result<(), Failure> {
    let milliseconds = std::env::args().nth(1).ok_or("signature-cost MS")?.parse()?;
    let period = Duration::from_millis(milliseconds);
    let random = SystemRandom::new();

    let key = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let mut signature = vec![0; key.public_modulus_len()];
    let rsa = cost(period, || {
        key.sign(&RSA_PKCS1_SHA256, &random, &MESSAGE, &mut signature)?;
        Ok(())
    })?;
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
    let p256 = cost(period, || {
        black_box(key.sign(&random, &MESSAGE)?);
        Ok(())
    })?;
    let key = Ed25519KeyPair::generate()?;
    let ed25519 = cost(period, || {
        black_box(key.sign(&MESSAGE));
        Ok(())
    })?;
    for (algorithm, nanoseconds) in [("RS256", rsa), ("ES256", p256), ("EdDSA", ed25519)] {
        println!("{algorithm} {nanoseconds}");
    }
    Ok(())
}

/// Nanoseconds of CPU that one call takes.
fn cost(period: Duration, mut sign: impl FnMut() -> Result<(), Failure>) -> Result<u128, Failure> {
    let mut batch = || (0..BATCH).try_for_each(|_| sign());
    let warm = Instant::now();
    while warm.elapsed() < period / 10 {
        batch()?;
    }
    let (began, mut signed) = (Instant::now(), 0);
    let before = spent(began)?;
    while began.elapsed() < period {
        batch()?;
        signed += u128::from(BATCH);
    }
    Ok((spent(began)? - before) / signed)
}

/// Nanoseconds that this thread was on a CPU; where the system doesn't say, the time since `began`.
fn spent(began: Instant) -> Result<u128, Failure> {
    match fs::read_to_string("/proc/thread-self/schedstat") {
        Ok(text) => Ok(text.split(' ').next().unwrap_or_default().parse()?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(began.elapsed().as_nanos()),
        Err(error) => Err(error.into()),
    }
}
