//! The golden files: what they hold is read from them, and made again to the byte. The same is asked of WebAssembly, in `golden.test.mjs`.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[path = "golden/content.rs"]
#[expect(unreachable_pub, reason = "it is the wasm module's, too")]
mod content;

use aws_lc_rs::digest::{SHA256, digest};

fn sha256(bytes: &[u8]) -> [u8; 32] {
    digest(&SHA256, bytes).as_ref().try_into().unwrap()
}

fn path(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// With `WRITE_GOLDEN_FILES=1` it writes them first. A change of theirs is a change of the format.
#[test]
fn golden_files_are_read_and_made_again() {
    for name in content::NAMES {
        let made = content::make(name, sha256).unwrap();
        if std::env::var_os("WRITE_GOLDEN_FILES").is_some() {
            std::fs::write(path(name), &made).unwrap();
        }
        let bytes = std::fs::read(path(name)).unwrap();
        let right = content::check(name, &bytes, sha256).unwrap();
        assert!(right >= 100, "{name}: only {right} answers");
        assert!(made == bytes, "{name} is made differently");
    }
}
