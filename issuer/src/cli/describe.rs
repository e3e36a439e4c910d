//! `countersign openapi` and `countersign errors`: what the API is, from the code itself. Neither needs any setting.

use std::io::Write as _;

use serde_json::json;

use super::Outcome;
use crate::http;
use crate::http::catalogue::{self, Code, OauthCode};

pub(super) fn openapi() -> Outcome {
    print(&http::description())
}

pub(super) fn errors(markdown: bool, json: bool) -> Outcome {
    if markdown {
        return print(&catalogue::page());
    }
    let codes = Code::ALL.iter().map(|code| (code.as_str(), code.status(), code.meaning(), code.fix()));
    let words = OauthCode::ALL.iter().map(|code| (code.as_str(), code.status(), code.meaning(), code.fix()));
    if json {
        let all = [("envelope", codes.collect::<Vec<_>>()), ("oauth", words.collect())];
        let all = all.into_iter().flat_map(|(kind, codes)| codes.into_iter().map(move |code| (kind, code)));
        let all = all.map(|(kind, (code, status, meaning, fix))| {
            json!({ "kind": kind, "code": code, "status": status.as_u16(), "meaning": meaning, "fix": fix })
        });
        return print(&format!("{:#}\n", json!(all.collect::<Vec<_>>())));
    }
    let lines = codes
        .chain(words)
        .map(|(code, status, meaning, _)| format!("{}  {code:<32}  {meaning}\n", status.as_str()));
    print(&lines.collect::<String>())
}

/// To standard output. Who closed it has read enough.
fn print(text: &str) -> Outcome {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
