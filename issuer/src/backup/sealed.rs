//! Sealing a file of any length: AES-256-GCM in chunks, in the manner of STREAM (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and its
//! Nonce-Reuse Misuse-Resistance, CRYPTO 2015), so that none can be changed, left out, put elsewhere or taken for the last one.
//!
//! A file is: `countersign backup` ‖ version (1 byte, 1) ‖ salt (32 bytes) ‖ chunks. A chunk has 65,536 bytes of the content, the last one fewer or as many, encrypted, and a tag (16
//! bytes). The key of the file is HKDF-SHA256 (RFC 5869) of the backup key with that salt, and the info `countersign backup v1`; a chunk's nonce is its number (11 bytes,
//! big-endian, from 0), and 1 for the last chunk, else 0.

use std::io::{self, Read, Write};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;

use super::CHUNK;
use crate::config::BackupKey;

const MAGIC: &[u8; 19] = b"countersign backup\x01";
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const INFO: &[u8] = b"countersign backup v1";

fn failed(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

fn key_of(key: &BackupKey, salt: &[u8]) -> io::Result<LessSafeKey> {
    let extracted = Salt::new(HKDF_SHA256, salt).extract(key.bytes());
    let key = extracted.expand(&[INFO], &AES_256_GCM).map(UnboundKey::from);
    key.map(LessSafeKey::new).map_err(|_| failed("the system's cryptography failed"))
}

/// Counts chunks.
#[derive(Default)]
struct Nonces(u64);

impl Nonces {
    fn next(&mut self, is_last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[3..NONCE_LEN - 1].copy_from_slice(&self.0.to_be_bytes());
        nonce[NONCE_LEN - 1] = is_last.into();
        self.0 += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what is written to it.
pub(super) struct Sealer<W> {
    inner: W,
    key: LessSafeKey,
    nonces: Nonces,
    chunk: Vec<u8>,
}

impl<W: Write> Sealer<W> {
    pub(super) fn begin(mut inner: W, key: &BackupKey) -> io::Result<Self> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| failed("the system's cryptography failed"))?;
        inner.write_all(MAGIC)?;
        inner.write_all(&salt)?;
        Ok(Self { inner, key: key_of(key, &salt)?, nonces: Nonces::default(), chunk: Vec::new() })
    }

    fn seal(&mut self, is_last: bool) -> io::Result<()> {
        let nonce = self.nonces.next(is_last);
        let sealed = self.key.seal_in_place_append_tag(nonce, Aad::empty(), &mut self.chunk);
        sealed.map_err(|_| failed("the system's cryptography failed"))?;
        self.inner.write_all(&self.chunk)?;
        self.chunk.clear();
        Ok(())
    }

    /// Writes the last chunk, without which nothing of it counts.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.seal(true)
    }
}

impl<W: Write> Write for Sealer<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk waits until it is known not to be the last.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens what was sealed. No byte of it is handed on before its chunk has proved to be what was written.
pub(super) struct Opener<R> {
    inner: R,
    key: LessSafeKey,
    nonces: Nonces,
    /// Sealed, and read ahead: a chunk is the last one if nothing follows.
    ahead: Vec<u8>,
    open: Vec<u8>,
    taken: usize,
}

impl<R: Read> Opener<R> {
    pub(super) fn begin(mut inner: R, key: &BackupKey) -> io::Result<Self> {
        let (mut magic, mut salt) = ([0; MAGIC.len()], [0; SALT_BYTES]);
        inner.read_exact(&mut magic)?;
        if magic != *MAGIC {
            return Err(failed("it isn't a sealed backup, or of a version that isn't known here"));
        }
        inner.read_exact(&mut salt)?;
        let key = key_of(key, &salt)?;
        let mut opener =
            Self { inner, key, nonces: Nonces::default(), ahead: Vec::new(), open: Vec::new(), taken: 0 };
        opener.ahead = opener.read_chunk()?;
        Ok(opener)
    }

    fn read_chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut chunk = Vec::with_capacity(CHUNK + TAG_BYTES);
        self.inner.by_ref().take((CHUNK + TAG_BYTES) as u64).read_to_end(&mut chunk)?;
        Ok(chunk)
    }
}

impl<R: Read> Read for Opener<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        // The end has been opened as such, so there is nothing ahead.
        if self.taken == self.open.len() && (self.nonces.0 == 0 || !self.ahead.is_empty()) {
            let next = self.read_chunk()?;
            let mut chunk = std::mem::replace(&mut self.ahead, next);
            let nonce = self.nonces.next(self.ahead.is_empty());
            let opened = self.key.open_in_place(nonce, Aad::empty(), &mut chunk);
            let length = opened
                .map_err(|_| failed("it was changed, or BACKUP_KEY isn't the key that it was made with"))?
                .len();
            chunk.truncate(length);
            (self.open, self.taken) = (chunk, 0);
        }
        let given = bytes.len().min(self.open.len() - self.taken);
        bytes[..given].copy_from_slice(&self.open[self.taken..self.taken + given]);
        self.taken += given;
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> BackupKey {
        BackupKey::new([byte; 32])
    }

    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut file = Vec::new();
        let mut sealer = Sealer::begin(&mut file, &key(1)).unwrap();
        sealer.write_all(content).unwrap();
        sealer.finish().unwrap();
        file
    }

    fn opened(file: &[u8], key: &BackupKey) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        Opener::begin(file, key)?.read_to_end(&mut content)?;
        Ok(content)
    }

    #[test]
    fn what_is_sealed_opens_whatever_its_length() {
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 3 * CHUNK + 7] {
            let content: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            let file = sealed(&content);
            let chunks = length.div_ceil(CHUNK).max(1);
            assert_eq!(file.len(), MAGIC.len() + SALT_BYTES + length + chunks * TAG_BYTES);
            assert_eq!(opened(&file, &key(1)).unwrap(), content);
            assert!(opened(&file, &key(2)).is_err(), "another key");
        }
        assert_ne!(sealed(b"the same"), sealed(b"the same"), "each file has a key of its own");
    }

    #[test]
    fn what_was_changed_does_not() {
        let file = sealed(&vec![7; 3 * CHUNK]);
        let chunk = CHUNK + TAG_BYTES;
        let start = MAGIC.len() + SALT_BYTES;
        for place in [0, 18, 19, start - 1, start, start + chunk, file.len() - 1] {
            let mut changed = file.clone();
            changed[place] ^= 1;
            assert!(opened(&changed, &key(1)).is_err(), "{place}");
        }
        for end in [0, 10, start, start + chunk, start + 2 * chunk, file.len() - 1] {
            assert!(opened(&file[..end], &key(1)).is_err(), "cut off at {end}");
        }
        let chunks: Vec<&[u8]> = file[start..].chunks(chunk).collect();
        for order in [vec![1, 0, 2], vec![0, 2], vec![0, 0, 2], vec![0, 1, 2, 2]] {
            let mut changed = file[..start].to_vec();
            for place in &order {
                changed.extend_from_slice(chunks[*place]);
            }
            assert!(opened(&changed, &key(1)).is_err(), "{order:?}");
        }
        let mut longer = file.clone();
        longer.push(0);
        assert!(opened(&longer, &key(1)).is_err());
    }
}
