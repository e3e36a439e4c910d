//! Backups, and going back to them: everything is there again, and what was revoked stays so everywhere.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use countersign_shared::verify::{Revocation, Revocations as _};
use countersign_shared::{Jti, Shard, UnixTime};
use serde_json::Value;

use crate::support::cli::Cli;
use crate::support::edge::with_issuer;
use crate::support::issuer::{claims, parsed};
use crate::support::{Issuer, TestDatabase, eventually};
use crate::upgrades::used_before;

const KEY: &str = "YSBiYWNrdXAga2V5IG9mIHRoaXJ0eS10d28gYnl0ZXM=";

fn jti(token: &str) -> Jti {
    claims(token)["jti"].as_str().unwrap().parse().unwrap()
}

/// A directory of the test's own, deleted with it.
struct Directory(PathBuf);

impl Directory {
    fn of(database: &TestDatabase) -> Self {
        let path = std::env::temp_dir().join(format!("{}-backups", database.name));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let names =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort_unstable();
        names
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| panic!("{text}"))
}

/// Into the directory, or to the file; its path.
fn back_up(cli: &Cli, out: &str) -> String {
    let made = json(&cli.run(&["backup", "--out", out, "--json"]).expect_success());
    made["path"].as_str().unwrap().to_owned()
}

fn manifest_of(path: &str) -> String {
    format!("{path}.json")
}

/// The drill: the database is lost, and so is what lay at the edge by the backup's time.
#[tokio::test]
async fn a_lost_database_is_back_and_edges_never_go_back() {
    let (edge, mut issuer) = with_issuer().await;
    let (database, administrator) = (issuer.database.clone(), issuer.administrator.clone());
    let directory = Directory::of(&database);
    let cli = Cli::new(&database.url).env("BACKUP_KEY", KEY);
    let hour =
        Shard::of_expiry(UnixTime(time::OffsetDateTime::now_utc().unix_timestamp() + 7200)).unwrap().get();
    database
        .execute(&format!(
            "insert into revocation_outbox (shard, serial) select {hour}, n * 7 from generate_series(1, 100000) n;
             insert into serial_shards values ({hour}, 1000000) on conflict (shard) do update set next_serial = 1000000"
        ))
        .await;
    let client = issuer.new_client(&["orders:read"]).await;
    let (before, kept) = (issuer.token(&client).await, issuer.token(&client).await);
    issuer.revoke(&client, &before).await;
    edge.refuses(jti(&before)).await;
    let path = back_up(&cli, directory.path());
    let made = Instant::now();

    // What the backup doesn't know.
    let after = issuer.token(&client).await;
    issuer.revoke(&client, &after).await;
    edge.refuses(jti(&after)).await;
    let position = edge.heads().last().unwrap().head.position();
    issuer.kill();
    edge.forget_objects();
    let (lost, began) = (made.elapsed(), Instant::now());

    let replacement = TestDatabase::empty().await;
    let cli = Cli::new(&replacement.url).env("BACKUP_KEY", KEY);
    let restored = json(&cli.run(&["restore", &path, "--json"]).expect_success());
    assert_eq!(restored["migrated"], Value::Array(Vec::new()));
    assert!(restored["epoch"].as_u64().unwrap() > position.0);
    let ready = Instant::now();
    let issuer =
        Issuer::start_on(Arc::new(replacement), administrator.clone(), |cli| edge.configure(cli)).await;
    let fresh = issuer.token(&client).await;
    assert!(issuer.is_active(&administrator, &fresh).await);
    let served = began.elapsed();
    let set = eventually("the edge goes by it", 30, async || {
        let newest = edge.heads().last().unwrap().head.position();
        edge.revoked_set().filter(|_| newest > position)
    })
    .await;
    println!(
        "RTO: tokens again after {served:?}, at the edge after {:?} ({:?} of it from the issuer's start on). RPO: what was done in {lost:?}",
        began.elapsed(),
        ready.elapsed()
    );
    assert!(began.elapsed().as_secs() < 300);

    // Whether it was revoked before or after the backup, or not at all: it has ended, and its id is nobody else's.
    for token in [&before, &after, &kept] {
        assert!(!issuer.is_active(&administrator, token).await);
        assert_ne!(set.verdict(&parsed(token)), Revocation::Clear, "{token}");
    }
    assert_eq!(set.verdict(&parsed(&fresh)), Revocation::Clear);
    assert_ne!(jti(&fresh), jti(&after));
    issuer.revoke(&client, &fresh).await;
    edge.refuses(jti(&fresh)).await;
    edge.expect_sound();
    let audited = &issuer.database.audit("system.recovered").await[0];
    assert!(audited["reason"].as_str().unwrap().starts_with("restored from countersign-"), "{audited}");
    issuer.database.sealed().await;
    Cli::new(&issuer.database.url).run(&["audit", "verify"]).expect_success();
}

#[tokio::test]
async fn what_is_not_what_was_written_is_refused() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let directory = Directory::of(&database);
    let cli = Cli::new(&database.url);
    let sealed = cli.clone().env("BACKUP_KEY", KEY);
    let path = format!("{}/one.dump", directory.path());
    assert_eq!(back_up(&cli, &path), path);
    let of_key = back_up(&sealed, directory.path());
    assert!(of_key.ends_with("Z.dump.sealed"), "{of_key}");
    for path in [&path, &of_key] {
        let verified = json(&sealed.run(&["backup", "verify", path, "--json"]).expect_success());
        assert_eq!((verified["rows"]["agents"].as_u64(), verified["format"].as_u64()), (Some(1), Some(1)));
        assert_eq!(verified["master_keys"].as_array().unwrap().len(), 1);
        for file in [path.clone(), manifest_of(path)] {
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
        }
        // What is sealed can't be read, and nothing secret lies open.
        let bytes = fs::read(path).unwrap();
        let shows = bytes.windows(12).any(|window| window == b"signing_keys");
        assert_eq!(shows, !path.ends_with("sealed"));
    }
    assert!(cli.run(&["backup", "--out", &path]).expect_failure().contains("is there already"));

    let empty = TestDatabase::empty().await;
    let restoring = Cli::new(&empty.url);
    let refused = |cli: &Cli, path: &str| {
        let said = cli.run(&["backup", "verify", path]).expect_failure();
        assert!(
            cli.clone()
                .env("DATABASE_URL", &empty.url)
                .run(&["restore", path])
                .expect_failure()
                .starts_with(&said),
            "{said}"
        );
        said
    };
    assert!(refused(&restoring, &of_key).contains("is sealed: set BACKUP_KEY"));
    let other = restoring.clone().env("BACKUP_KEY", "b3RoZXIgYmFja3VwIGtleSBvZiB0aGlydHktdHdvIGI=");
    assert!(refused(&other, &of_key).contains("BACKUP_KEY isn't the key that it was made with"));
    let whole = fs::read(&path).unwrap();
    let mut changed = whole.clone();
    changed[whole.len() / 2] ^= 1;
    for content in [&changed, &whole[..whole.len() - 1].to_vec()] {
        fs::write(&path, content).unwrap();
        assert!(refused(&restoring, &path).contains("isn't what was written"), "{}", content.len());
    }
    // Even if the manifest was written for it.
    let manifest = fs::read_to_string(manifest_of(&path)).unwrap();
    let half = &whole[..whole.len() / 2];
    fs::write(&path, half).unwrap();
    let mut told = json(&manifest);
    told["bytes"] = half.len().into();
    told["sha256"] = data_encoding::HEXLOWER
        .encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, half).as_ref())
        .into();
    fs::write(manifest_of(&path), told.to_string()).unwrap();
    let said = restoring.run(&["backup", "verify", &path]).expect_failure();
    assert!(said.contains("pg_restore failed"), "{said}");
    let said = restoring.run(&["restore", &path]).expect_failure();
    assert!(
        said.contains("pg_restore failed") && said.ends_with("The database is as it was before"),
        "{said}"
    );
    // Of a time to come.
    fs::write(&path, &whole).unwrap();
    let mut told = json(&manifest);
    told["schema"] = 99_991_231_000_000_i64.into();
    fs::write(manifest_of(&path), told.to_string()).unwrap();
    assert!(restoring.run(&["restore", &path]).expect_failure().contains("newer than this binary"));
    fs::remove_file(manifest_of(&path)).unwrap();
    assert!(refused(&restoring, &path).contains("a backup without its manifest"));
    let tables: i64 =
        empty.value("select count(*) from pg_class where relnamespace = 'public'::regnamespace").await;
    assert_eq!(tables, 0, "nothing was left behind");
}

#[tokio::test]
async fn a_database_in_use_is_replaced_only_when_told_so_and_only_by_a_whole_one() {
    let issuer = Issuer::start().await;
    let directory = Directory::of(&issuer.database);
    let cli = Cli::new(&issuer.database.url);
    let path = back_up(&cli, directory.path());
    let later = issuer.new_client(&[]).await;
    assert!(cli.run(&["restore", &path]).expect_failure().starts_with("the database isn't empty"));
    let said = cli.run(&["restore", &path, "--force"]).expect_failure();
    assert!(said.contains("stop them first"), "{said}");
    let mut issuer = issuer;
    issuer.stop();

    // One that fails half-way leaves what was there.
    let whole = fs::read_to_string(manifest_of(&path)).unwrap();
    let mut told = json(&whole);
    told["rows"]["agents"] = 7.into();
    fs::write(manifest_of(&path), told.to_string()).unwrap();
    let said = cli.run(&["restore", &path, "--force"]).expect_failure();
    assert_eq!(
        said,
        "agents has Some(1) rows after the restore, and the backup has Some(7). The database is as it was before"
    );
    let agents = "select count(*) from agents";
    assert_eq!(issuer.database.value::<i64>(agents).await, 2);

    fs::write(manifest_of(&path), whole).unwrap();
    let said = cli.run(&["restore", &path, "--force", "--reason", "a test"]).expect_success();
    assert!(
        said.contains("Every token that was issued up to") && said.contains("has to be done again"),
        "{said}"
    );
    assert_eq!(issuer.database.value::<i64>(agents).await, 1, "the later one is gone");
    let schemas: i64 = issuer
        .database
        .value("select count(*) from pg_namespace where nspname = 'countersign_before_restore'")
        .await;
    assert_eq!(schemas, 0);
    let issuer = Issuer::start_on(issuer.database.clone(), issuer.administrator.clone(), |cli| cli).await;
    issuer.token(&issuer.administrator).await;
    let form = [("grant_type", "client_credentials")];
    assert_eq!(issuer.oauth("token", &later, &form).await.status(), 401);
    assert_eq!(issuer.database.audit("system.recovered").await[0]["reason"], "a test");
}

#[tokio::test]
async fn a_copy_is_not_recovered() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let directory = Directory::of(&database);
    let path = back_up(&Cli::new(&database.url), directory.path());
    let copy = TestDatabase::empty().await;
    let said = Cli::new(&copy.url).run(&["restore", &path, "--no-recover"]).expect_success();
    assert!(said.ends_with("Before an issuer runs on it that publishes: countersign recover\n"), "{said}");
    assert_eq!(copy.value::<i64>("select epoch from publisher_state").await, 1);
    assert_eq!(copy.value::<i64>("select count(*) from not_before_rules").await, 0);
}

#[tokio::test]
async fn one_of_an_older_schema_is_brought_up_to_date() {
    let database = TestDatabase::empty().await;
    used_before(&database).await;
    let directory = Directory::of(&database);
    let path = back_up(&Cli::new(&database.url), directory.path());
    let replacement = TestDatabase::empty().await;
    let restored = json(&Cli::new(&replacement.url).run(&["restore", &path, "--json"]).expect_success());
    assert!(!restored["migrated"].as_array().unwrap().is_empty());
    Cli::new(&replacement.url).run(&["agents", "list"]).expect_success();
}

#[tokio::test]
async fn old_ones_go_and_nothing_else_in_their_directory() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let (other, _) = TestDatabase::bootstrapped().await;
    let directory = Directory::of(&database);
    for name in ["notes.txt", "countersign-20200101T000000Z.dump", "countersign.dump.json"] {
        fs::write(directory.0.join(name), "mine").unwrap();
    }
    let cli = Cli::new(&database.url);
    back_up(&Cli::new(&other.url), directory.path());
    let before = directory.names();
    let mut made = Vec::new();
    for _ in 0..3 {
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        let said = cli.run(&["backup", "--out", directory.path(), "--keep", "2", "--json"]);
        made.push(json(&said.expect_success()));
    }
    let path = |made: &Value| made["path"].as_str().unwrap().to_owned();
    assert_eq!(made[2]["deleted"], Value::from(vec![path(&made[0])]));
    let file = |path: &str| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
    let mut expected = before;
    for kept in &made[1..] {
        expected.extend([file(&path(kept)), file(&manifest_of(&path(kept)))]);
    }
    expected.sort_unstable();
    assert_eq!(directory.names(), expected);
    let said =
        cli.run(&["backup", "--out", &format!("{}/one", directory.path()), "--keep", "2"]).expect_failure();
    assert_eq!(said, "--keep is about the backups in a directory: give that to --out");
}

#[tokio::test]
async fn without_programs_that_fit_it_says_what_to_install() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let directory = Directory::of(&database);
    let cli = Cli::new(&database.url).env("POSTGRES_BIN", directory.path());
    let out = format!("{}/one", directory.path());
    let major: i32 = database.value("select current_setting('server_version_num')::integer / 10000").await;
    let fix = format!("postgresql-client-{major}");
    let said = cli.run(&["backup", "--out", &out]).expect_failure();
    assert!(said.starts_with("pg_dump and pg_restore aren't in ") && said.contains(&fix), "{said}");
    for program in ["pg_dump", "pg_restore"] {
        let path = directory.0.join(program);
        fs::write(&path, "#!/bin/sh\necho \"$0 (PostgreSQL) 9.6.1\"\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let said = cli.run(&["backup", "--out", &out]).expect_failure();
    assert!(
        said.starts_with("pg_dump 9.6.1 in ")
            && said.contains(&format!("is older than the server, which is {major}")),
        "{said}"
    );
    // One that fails says why, in its own words.
    fs::write(directory.0.join("pg_dump"), "#!/bin/sh\ncase $1 in --version) echo 'pg_dump (PostgreSQL) 99.1';; *) echo half; echo no luck >&2; exit 3;; esac\n").unwrap();
    fs::write(directory.0.join("pg_restore"), "#!/bin/sh\necho 'pg_restore (PostgreSQL) 99.1'\n").unwrap();
    let said = cli.run(&["backup", "--out", &out]).expect_failure();
    assert!(said.contains("failed (exit status: 3): no luck"), "{said}");
    assert_eq!(directory.names(), ["pg_dump", "pg_restore"], "nothing is left of it");
    let wrong =
        cli.env("BACKUP_KEY", "short").env("POSTGRES_BIN", "relative").run(&["backup", "--out", &out]);
    assert_eq!(wrong.code(), Some(78));
    assert!(
        wrong.stderr().contains("BACKUP_KEY must be the base64 of 32 bytes")
            && wrong.stderr().contains("POSTGRES_BIN must be")
    );
}
