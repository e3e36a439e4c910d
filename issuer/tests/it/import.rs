//! Keys of a system that is being replaced.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::support::cli::Cli;
use crate::support::issuer::part;
use crate::support::{Issuer, TestDatabase, eventually};

/// PEM files, made by OpenSSL.
struct Files(PathBuf);

impl Files {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("countersign-pem-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.0.join(name)).unwrap()
    }

    /// Runs `openssl`, in the folder.
    fn openssl(&self, arguments: &str) {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(&self.0).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
        for file in std::fs::read_dir(&self.0).unwrap() {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(file.unwrap().path(), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// `NAME.pem` (PKCS#8) and `NAME.pub.pem` (SPKI).
    fn pair(&self, name: &str, options: &str) {
        self.openssl(&format!("genpkey {options} -out {name}.pem"));
        self.openssl(&format!("pkey -in {name}.pem -pubout -out {name}.pub.pem"));
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        _ = std::fs::remove_dir_all(&self.0);
    }
}

const RSA: &str = "-algorithm RSA -pkeyopt rsa_keygen_bits:2048";
const P256: &str = "-algorithm EC -pkeyopt ec_paramgen_curve:P-256";

fn later(duration: time::Duration) -> String {
    (OffsetDateTime::now_utc() + duration).truncate_to_second().format(&Rfc3339).unwrap()
}

/// Several backends may be compiled in: which one jsonwebtoken is to use.
fn choose_backend() {
    _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
}

/// A token as the system before issued them, with whatever claims.
fn foreign_token(pem: &str, kid: Option<&str>) -> String {
    choose_backend();
    let header = Header { kid: kid.map(str::to_owned), ..Header::new(jsonwebtoken::Algorithm::RS256) };
    let claims = json!({ "iss": "https://old.example", "sub": "a", "exp": OffsetDateTime::now_utc().unix_timestamp() + 600 });
    jsonwebtoken::encode(&header, &claims, &EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap()).unwrap()
}

/// What a resource server does that goes by the JWK Set, with a library of others.
async fn verifies(issuer: &Issuer, token: &str) -> Result<Value, String> {
    choose_backend();
    let set: JwkSet = issuer.get("/.well-known/jwks.json").send().await.unwrap().json().await.unwrap();
    let kid = part(token, 0)["kid"].as_str().ok_or("no kid")?.to_owned();
    let key = DecodingKey::from_jwk(set.find(&kid).ok_or("kid is not in the set")?).unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::RS256);
    validation.set_issuer(&["https://old.example"]);
    validation.validate_aud = false;
    jsonwebtoken::decode::<Value>(token, &key, &validation)
        .map(|data| data.claims)
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn what_the_system_before_has_signed_is_verified_until_a_time() {
    let issuer = Issuer::start_with(|cli| cli.env("JWKS_MAX_AGE_SECONDS", "1")).await;
    let cli = Cli::new(&issuer.database.url).env("JWKS_MAX_AGE_SECONDS", "1");
    let files = Files::new();
    files.pair("old", RSA);
    let token = foreign_token(&files.text("old.pem"), Some("old-1"));
    assert_eq!(verifies(&issuer, &token).await.unwrap_err(), "kid is not in the set");

    let until = later(time::Duration::HOUR);
    let import = [
        "keys",
        "import",
        "--public",
        &files.path("old.pub.pem"),
        "--kid",
        "old-1",
        "--verifies-until",
        &until,
        "--json",
    ];
    let said: Value = serde_json::from_str(&cli.run(&import).expect_success()).unwrap();
    assert_eq!(
        (&said["key"]["kid"], &said["key"]["state"], &said["key"]["verifies_until"]),
        (&"old-1".into(), &"retiring".into(), &until.clone().into())
    );
    eventually("every issuer publishes it", 5, async || verifies(&issuer, &token).await.ok()).await;
    // A token without a kid names no key; one that another key has signed isn't this one's.
    files.pair("other", RSA);
    assert_eq!(verifies(&issuer, &foreign_token(&files.text("old.pem"), None)).await.unwrap_err(), "no kid");
    assert!(verifies(&issuer, &foreign_token(&files.text("other.pem"), Some("old-1"))).await.is_err());
    // Our own API takes tokens of our own only, whoever signed.
    let ours = issuer.get("/api/v1/agents").bearer_auth(&token).send().await.unwrap();
    assert_eq!(ours.status(), 401);
    assert!(!issuer.is_active(&issuer.administrator, &token).await);

    let again = cli.run(&import).expect_failure();
    assert!(again.contains("the key is here already"), "{again}");
    let renamed = cli
        .run(&["keys", "import", "--public", &files.path("old.pub.pem"), "--verifies-until", &until])
        .expect_failure();
    assert!(renamed.ends_with("another of that name: old-1"), "{renamed}");
    let rows: (String, bool) =
        sqlx::query_as("select state, public_only from signing_keys where kid = 'old-1'")
            .fetch_one(&issuer.database.pool)
            .await
            .unwrap();
    assert_eq!(rows, ("retiring".into(), true));
    assert_eq!(issuer.database.audit("key.imported").await[0]["target"], "old-1");

    // Who can write to the table can't have a key trusted: neither in that row nor in one like it.
    issuer.database.execute("update signing_keys set public_jwk = replace(public_jwk, '\"n\":\"', '\"n\":\"A') where kid = 'old-1'").await;
    let said = cli.run(&["keys", "export-public", "--purpose", "token"]).expect_failure();
    assert!(said.contains("was changed or moved"), "{said}");
    issuer.database.execute("update signing_keys set public_jwk = replace(public_jwk, '\"n\":\"A', '\"n\":\"'), kid = 'old-1' where kid = 'old-1'").await;
    cli.run(&["keys", "export-public", "--purpose", "token"]).expect_success();
    issuer.database.execute("update signing_keys set kid = 'old-2', public_jwk = replace(public_jwk, 'old-1', 'old-2') where kid = 'old-1'").await;
    cli.run(&["keys", "export-public", "--purpose", "token"]).expect_failure();
}

#[tokio::test]
async fn an_imported_key_signs_when_everybody_knows_it() {
    let (database, administrator) = TestDatabase::bootstrapped().await;
    // Nobody has kept a JWK Set for longer than the issuer below says.
    database.execute("update key_state set jwks_max_age_seconds = 1").await;
    let issuer =
        Issuer::start_on(database.into(), administrator, |cli| cli.env("JWKS_MAX_AGE_SECONDS", "1")).await;
    let cli = Cli::new(&issuer.database.url).env("JWKS_MAX_AGE_SECONDS", "1");
    let files = Files::new();
    files.pair("old", RSA);
    let import = [
        "keys",
        "import",
        "--private",
        &files.path("old.pem"),
        "--public",
        &files.path("old.pub.pem"),
        "--kid",
        "old-1",
    ];
    let said = cli.run(&import).expect_success();
    assert!(said.starts_with("key old-1 (RS256 2048, tokens) is published\nit signs from "), "{said}");
    let token = foreign_token(&files.text("old.pem"), Some("old-1"));
    eventually("it is published", 5, async || verifies(&issuer, &token).await.ok()).await;
    let client = issuer.new_client(&["orders:read"]).await;
    let ours = eventually("it signs", 20, async || {
        let token = issuer.token(&client).await;
        (part(&token, 0)["kid"] == "old-1").then_some(token)
    })
    .await;
    assert!(issuer.is_active(&client, &ours).await);
    let log = issuer.whole_log().await;
    for member in files.text("old.pem").lines().filter(|line| !line.starts_with("-----")) {
        assert!(!log.contains(member));
    }
}

#[tokio::test]
async fn the_first_key_may_come_from_the_environment() {
    let files = Files::new();
    files.pair("old", RSA);
    for (private, public) in [
        (files.text("old.pem").replace('\n', "\\n"), files.text("old.pub.pem").replace('\n', "\\n")),
        (files.path("old.pem"), files.path("old.pub.pem")),
    ] {
        let database = TestDatabase::empty().await;
        let cli = Cli::new(&database.url)
            .env("JWT_PRIVATE_KEY", &private)
            .env("JWT_PUBLIC_KEY", &public)
            .env("JWT_KEY_ID", "old-1");
        cli.run(&["migrate"]).expect_success();
        cli.run(&["bootstrap"]).expect_success();
        let jwks: Value =
            serde_json::from_str(&cli.run(&["keys", "export-public", "--purpose", "token"]).expect_success())
                .unwrap();
        assert_eq!((jwks["keys"].as_array().unwrap().len(), &jwks["keys"][0]["kid"]), (1, &"old-1".into()));
        let state: String = database.value("select state from signing_keys where kid = 'old-1'").await;
        assert_eq!(state, "active");
        let again = cli.run(&["bootstrap"]);
        again.expect_success();
        assert!(again.stderr().contains("JWT_PRIVATE_KEY is left aside"), "{}", again.stderr());
        let keys: i64 = database.value("select count(*) from signing_keys").await;
        assert_eq!(keys, 2);
    }
    // A second pair whose halves don't belong together, and what is no key.
    files.pair("other", RSA);
    files.pair("ec", P256);
    let secret = "aHVudGVyMg==";
    for (private, public, problem) in [
        (files.path("old.pem"), files.path("other.pub.pem"), "not a pair"),
        (files.path("ec.pem"), files.path("ec.pub.pem"), "RS256 doesn't go with a key of that kind"),
        (secret.to_owned(), files.path("old.pub.pem"), "JWT_PRIVATE_KEY is neither PEM"),
        (String::new(), files.path("old.pub.pem"), "JWT_PRIVATE_KEY isn't"),
    ] {
        let cli = Cli::new("postgres://127.0.0.1:1/none")
            .env("JWT_PRIVATE_KEY", &private)
            .env("JWT_PUBLIC_KEY", &public);
        let ran = cli.run(&["bootstrap"]);
        assert_eq!(ran.code(), Some(78));
        assert!(ran.stderr().contains(problem) && !ran.stderr().contains(secret), "{}", ran.stderr());
    }
}

/// A key of another size than issuers are set to doesn't stay for long: that is said.
#[tokio::test]
async fn a_key_of_another_size_is_said_to_be_replaced() {
    let files = Files::new();
    files.pair("large", "-algorithm RSA -pkeyopt rsa_keygen_bits:3072");
    files.pair("usual", RSA);
    let (database, _) = TestDatabase::bootstrapped().await;
    let said = Cli::new(&database.url).run(&["keys", "import", "--private", &files.path("large.pem")]);
    let said = said.expect_success();
    assert!(said.contains("WARNING: issuers whose TOKEN_SIGNING_RSA_BITS isn't 3072 replace it"), "{said}");

    for (file, bits, expected) in
        [("large", "2048", true), ("large", "3072", false), ("usual", "2048", false)]
    {
        let database = TestDatabase::empty().await;
        let cli = Cli::new(&database.url)
            .env("JWT_PRIVATE_KEY", &files.path(&format!("{file}.pem")))
            .env("JWT_PUBLIC_KEY", &files.path(&format!("{file}.pub.pem")))
            .env("TOKEN_SIGNING_RSA_BITS", bits);
        cli.run(&["migrate"]).expect_success();
        let said = cli.run(&["bootstrap"]);
        said.expect_success();
        let said = said.stderr();
        let warning = "the first key has 3072 bits, and TOKEN_SIGNING_RSA_BITS is 2048";
        assert_eq!(said.contains(warning), expected, "{file} {bits}: {said}");
    }
}

#[tokio::test]
async fn keys_come_in_every_usual_form_and_weak_ones_are_refused() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let cli = Cli::new(&database.url);
    let files = Files::new();
    files.pair("rsa", RSA);
    files.openssl("rsa -in rsa.pem -traditional -out rsa1.pem");
    files.openssl("rsa -in rsa.pem -RSAPublicKey_out -out rsa1.pub.pem");
    files.openssl("pkey -in rsa.pem -aes256 -passout pass:x -out encrypted.pem");
    files.openssl("rsa -in rsa.pem -traditional -aes256 -passout pass:x -out encrypted1.pem");
    files.pair("ec", P256);
    files.openssl("ecparam -name prime256v1 -genkey -out sec1.pem");
    files.openssl("pkey -in sec1.pem -pubout -out sec1.pub.pem");
    files.pair("ed", "-algorithm ED25519");
    files.pair("short", "-algorithm RSA -pkeyopt rsa_keygen_bits:1024");
    files.pair("long", "-algorithm RSA -pkeyopt rsa_keygen_bits:4104");
    files.pair("three", "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:3");
    files.pair("p384", "-algorithm EC -pkeyopt ec_paramgen_curve:P-384");
    files.pair("koblitz", "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1");
    files.openssl("ecparam -name secp256k1 -genkey -out koblitz1.pem");
    files.pair("x25519", "-algorithm X25519");
    files.pair("pss", "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048");
    files.openssl("req -x509 -key rsa.pem -subj /CN=x -days 1 -out certificate.pem");

    // Every form of private key, in one word: what its pair is checked with. Each is then only verified with, so any number of them may be taken in.
    let until = later(time::Duration::DAY);
    let verify = ["--as", "retiring", "--verifies-until", &until];
    for (private, public, kind) in [
        ("rsa.pem", "rsa1.pub.pem", "RS256 2048"),
        ("ec.pem", "ec.pub.pem", "ES256"),
        ("sec1.pem", "sec1.pub.pem", "ES256"),
        ("ed.pem", "ed.pub.pem", "EdDSA"),
    ] {
        let import = ["keys", "import", "--private", &files.path(private), "--public", &files.path(public)];
        let said = cli.run(&[&import[..], &verify].concat()).expect_success();
        assert!(said.contains(&format!("({kind}, tokens) is published")), "{said}");
    }
    let kept: i64 = database.value("select count(*) from signing_keys where public_only").await;
    assert_eq!(kept, 4);
    // PKCS#1, from standard input, to sign with, as PS256; and what isn't in use doesn't sign.
    let mut command = cli.command(&["keys", "import", "--private", "-", "--algorithm", "PS256"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(files.text("rsa1.pem").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("nothing is signed with PS256: set TOKEN_SIGNING_ALGORITHM"), "{said}");

    for (private, problem) in [
        ("encrypted.pem", "is encrypted: decrypt it first"),
        ("encrypted1.pem", "is encrypted: decrypt it first"),
        ("short.pem", "modulus that isn't of 2048 to 4096 bits"),
        ("long.pem", "modulus that isn't of 2048 to 4096 bits"),
        ("three.pem", "exponent other than 65537"),
        ("p384.pem", "another curve (OID 1.3.132.0.34) than P-256"),
        ("koblitz.pem", "another curve (OID 1.3.132.0.10) than P-256"),
        ("koblitz1.pem", "another curve (OID 1.3.132.0.10) than P-256"),
        ("x25519.pem", "of another kind (OID 1.3.101.110)"),
        ("pss.pem", "marked as RSASSA-PSS"),
        ("certificate.pem", "that is a certificate"),
        ("rsa.pub.pem", "there is no private key, but a PEM block `PUBLIC KEY`"),
    ] {
        let said = cli.run(&["keys", "import", "--private", &files.path(private)]).expect_failure();
        assert!(said.contains(problem), "{private}: {said}");
    }
    for (public, problem) in [
        ("short.pub.pem", "modulus that isn't of 2048 to 4096 bits"),
        ("three.pub.pem", "exponent other than 65537"),
        ("p384.pub.pem", "another curve"),
        ("x25519.pub.pem", "of another kind"),
        ("certificate.pem", "openssl x509"),
    ] {
        let import = ["keys", "import", "--public", &files.path(public), "--verifies-until", &until];
        let said = cli.run(&import).expect_failure();
        assert!(said.contains(problem), "{public}: {said}");
    }
    let said = cli
        .run(&["keys", "import", "--private", &files.path("rsa.pem"), "--public", &files.path("ec.pub.pem")])
        .expect_failure();
    assert!(said.contains("not a pair"), "{said}");
    let import = ["keys", "import", "--private", &files.path("ec.pem"), "--algorithm", "RS256"];
    assert!(cli.run(&import).expect_failure().contains("RS256 doesn't go with a key of that kind"));
    let import = ["keys", "import", "--private", &files.path("rsa1.pem"), "--kid", "a\"b"];
    assert!(cli.run(&import).expect_failure().contains("the kid must have 1 to 128"));
    let import = [
        "keys",
        "import",
        "--public",
        &files.path("rsa.pub.pem"),
        "--verifies-until",
        "2001-01-01T00:00:00Z",
    ];
    assert!(cli.run(&import).expect_failure().contains("from a minute to 366 days from now"));
    std::fs::set_permissions(files.path("rsa.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .unwrap();
    let said = cli.run(&["keys", "import", "--private", &files.path("rsa.pem")]).expect_failure();
    assert!(said.contains("is open to everybody on this machine (mode 644)"), "{said}");
}
