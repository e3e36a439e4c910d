//! A PKCS#11 token, `SoftHSM`'s, with a directory of its own.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::cli::Cli;
use super::required;

pub(crate) const PIN: &str = "hunter2-1234";
pub(crate) const LABEL: &str = "countersign";

/// Gone when dropped.
pub(crate) struct Token {
    directory: PathBuf,
    module: String,
}

impl Token {
    /// With an AES-256 key for each label.
    pub(crate) fn new(keys: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("countersign-softhsm-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(directory.join("tokens")).unwrap();
        let settings = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            directory.join("tokens").display()
        );
        std::fs::write(directory.join("softhsm2.conf"), settings).unwrap();
        let token = Self { directory, module: required("TEST_PKCS11_MODULE") };
        token.run(
            "softhsm2-util",
            &["--init-token", "--free", "--label", LABEL, "--so-pin", "87654321", "--pin", PIN],
        );
        for (number, key) in keys.iter().enumerate() {
            token.make_key(key, 32, number + 1);
        }
        token
    }

    /// Makes an AES key of so many bytes.
    pub(crate) fn make_key(&self, label: &str, bytes: usize, number: usize) {
        let (kind, id) = (format!("AES:{bytes}"), format!("{number:02}"));
        let make = ["--keygen", "--key-type", &kind, "--label", label, "--id", &id, "--sensitive"];
        self.pkcs11(&make);
    }

    /// Takes a key away.
    pub(crate) fn delete_key(&self, label: &str) {
        self.pkcs11(&["--delete-object", "--type", "secrkey", "--label", label]);
    }

    fn pkcs11(&self, arguments: &[&str]) {
        let login = ["--module", &self.module, "--token-label", LABEL, "--login", "--pin", PIN];
        self.run("pkcs11-tool", &[&login[..], arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let output = Command::new(program)
            .args(arguments)
            .env("SOFTHSM2_CONF", self.directory.join("softhsm2.conf"))
            .output()
            .unwrap_or_else(|error| panic!("{program}: {error}: run the tests by bin/test, or install it"));
        assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The settings by which the master key is `key` in this token; `prefix`: `NEW_` or nothing.
    pub(crate) fn configure(&self, cli: Cli, prefix: &str, key: &str) -> Cli {
        let named = |name: &str| format!("{prefix}{name}");
        cli.without(&named("MASTER_KEY"))
            .env("SOFTHSM2_CONF", self.directory.join("softhsm2.conf").to_str().unwrap())
            .env(&named("MASTER_KEY_PROVIDER"), "pkcs11")
            .env(&named("PKCS11_MODULE"), &self.module)
            .env(&named("PKCS11_TOKEN_LABEL"), LABEL)
            .env(&named("PKCS11_KEY_LABEL"), key)
            .env(&named("PKCS11_PIN"), PIN)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.directory);
    }
}
