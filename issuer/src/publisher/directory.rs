//! A directory as a place for artifacts: for verifiers that aren't on Cloudflare, and for looking.
//!
//! `base/DIGEST`, `head.jwt`, `keys.jwt`. Each is written under another name, synced and renamed, so whoever reads gets a whole one; an object is there before
//! a head names it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use aws_lc_rs::rand;
use countersign_shared::base64url;
use futures_util::future::BoxFuture;
use serde::Deserialize;

use super::artifacts::{BaseObject, OBJECT_KEPT};
use super::sinks::{Artifact, Receipt, Sink, SinkError};
use crate::clock;

const HEAD: &str = "head.jwt";
const KEYS: &str = "keys.jwt";
/// What is being written has this at its end.
const UNFINISHED: &str = ".new";
/// How often what nothing refers to any more is looked for.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// One kind of artifact's way into a directory.
pub(super) struct Directory {
    name: &'static str,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    tidied: Mutex<Option<Instant>>,
}

impl Directory {
    /// The ways of objects, heads and key statements into `root`, which is made if it isn't there.
    pub(super) fn doors(root: PathBuf) -> [Self; 3] {
        let shared = Arc::new(Shared { root, tidied: Mutex::default() });
        ["directory_objects", "directory", "directory_keys"].map(|name| Self { name, shared: shared.clone() })
    }
}

impl Sink for Directory {
    fn name(&self) -> &'static str {
        self.name
    }

    fn deliver<'a>(&'a self, artifact: &'a Artifact) -> BoxFuture<'a, Result<Receipt, SinkError>> {
        let shared = self.shared.clone();
        // On a blocking thread, which needs its own: a megabyte a second at most.
        let work: Box<dyn FnOnce() -> Result<Receipt, SinkError> + Send> = match artifact {
            Artifact::Object(object) => {
                let object = object.clone();
                Box::new(move || shared.put_object(&object).map(|()| Receipt::default()))
            }
            Artifact::Head(jws, base) => {
                let (jws, base) = (jws.clone(), base.clone());
                Box::new(move || shared.put_head(&jws, base.as_deref()))
            }
            Artifact::Keys(jws) => {
                let jws = jws.clone();
                Box::new(move || shared.put_statement(KEYS, &jws).map(|()| Receipt::default()))
            }
        };
        Box::pin(async move {
            let done = tokio::task::spawn_blocking(work).await;
            done.unwrap_or_else(|_| Err(SinkError::Failed("writing was interrupted".into())))
        })
    }
}

impl Shared {
    fn put_object(&self, object: &BaseObject) -> Result<(), SinkError> {
        let name = object.name();
        let there = fs::metadata(self.root.join(&name)).ok().map(|file| file.len());
        // Whatever has the name was renamed to it when it was whole.
        if there == Some(object.bytes.len() as u64) {
            return self.touch(&name).map_err(|error| failed(&name, &error));
        }
        self.write(&name, &object.bytes)
    }

    fn put_head(&self, jws: &str, base: Option<&BaseObject>) -> Result<Receipt, SinkError> {
        let base_of = |jws: &[u8]| Statement::read(jws).and_then(|statement| statement.base);
        let named = base_of(jws.as_bytes());
        let named = named.ok_or_else(|| SinkError::Failed("a head names its base".into()))?;
        let before = fs::read(self.root.join(HEAD)).ok().and_then(|held| base_of(&held));
        let is_there = self.root.join("base").join(&named).exists();
        match base {
            Some(base) if before.as_ref() != Some(&named) || !is_there => self.put_object(base)?,
            None if !is_there => {
                self.refuse_older(HEAD, jws)?;
                return Err(SinkError::Baseless(format!("base object {named} isn't there yet")));
            }
            _ => {}
        }
        self.put_statement(HEAD, jws)?;
        if let Some(before) = before.filter(|before| *before != named) {
            // So that its age is counted from now. It may be gone.
            _ = self.touch(&format!("base/{before}"));
        }
        self.tidy(&named).map_err(|error| failed("base", &error))?;
        let keys = fs::read(self.root.join(KEYS)).ok();
        let keys = keys.and_then(|jws| Statement::read(&jws)).and_then(|keys| keys.position());
        Ok(Receipt { keys, listeners: None })
    }

    /// Writes a head or a key statement, unless a newer one is there.
    fn put_statement(&self, name: &str, jws: &str) -> Result<(), SinkError> {
        self.refuse_older(name, jws)?;
        self.write(name, jws.as_bytes())
    }

    /// An error where there is a newer one.
    fn refuse_older(&self, name: &str, jws: &str) -> Result<(), SinkError> {
        let position = |jws: &[u8]| Statement::read(jws).and_then(|statement| statement.position());
        let held = match fs::read(self.root.join(name)) {
            Ok(held) => position(&held),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(failed(name, &error)),
        };
        match held {
            Some((epoch, seq)) if position(jws.as_bytes()) < held => {
                Err(SinkError::Superseded { epoch, seq })
            }
            _ => Ok(()),
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), SinkError> {
        self.try_write(&self.root.join(name), bytes).map_err(|error| failed(name, &error))
    }

    fn try_write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(folder)?;
        let mut chance = [0; 8];
        _ = rand::fill(&mut chance); // without it two processes may be in each other's way, and both try again
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{:016x}{UNFINISHED}", u64::from_le_bytes(chance)));
        let written = File::create_new(&unfinished).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&unfinished, path)?;
            File::open(folder)?.sync_all()
        });
        if written.is_err() {
            _ = fs::remove_file(&unfinished);
        }
        written
    }

    fn touch(&self, name: &str) -> io::Result<()> {
        File::options().append(true).open(self.root.join(name))?.set_modified(clock::precise().into())
    }

    /// Deletes what no head has named for long enough, and what somebody who was killed didn't finish.
    fn tidy(&self, named: &str) -> io::Result<()> {
        {
            let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
            if tidied.is_some_and(|last| last.elapsed() < TIDY_EVERY) {
                return Ok(());
            }
            *tidied = Some(Instant::now());
        }
        let kept_since = SystemTime::from(clock::precise()) - OBJECT_KEPT;
        for file in fs::read_dir(self.root.join("base"))?.chain(fs::read_dir(&self.root)?) {
            let file = file?;
            let Ok(name) = file.file_name().into_string() else { continue };
            let is_object = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if name == named || !(is_object || name.ends_with(UNFINISHED)) || !file.file_type()?.is_file() {
                continue;
            }
            if file.metadata()?.modified()? < kept_since {
                fs::remove_file(file.path())?;
            }
        }
        Ok(())
    }
}

/// Of a head or a key statement, what matters for their order. They are our own, so they aren't verified.
#[derive(Deserialize)]
struct Statement {
    epoch: u64,
    seq: Option<u64>,
    version: Option<u64>,
    base: Option<String>,
}

impl Statement {
    fn read(jws: &[u8]) -> Option<Self> {
        let payload = jws.split(|byte| *byte == b'.').nth(1)?;
        serde_json::from_slice(&base64url::decode(payload)?).ok()
    }

    fn position(&self) -> Option<(u64, u64)> {
        Some((self.epoch, self.seq.or(self.version)?))
    }
}

fn failed(name: &str, error: &io::Error) -> SinkError {
    SinkError::Failed(format!("{name} can't be written: {error}"))
}
