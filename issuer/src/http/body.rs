//! Request bodies: bounded in size and in time.

use axum::body::Body;
use axum::http::HeaderMap;
use axum::http::header::CONTENT_TYPE;
use futures_util::StreamExt as _;

use super::bounds::{BODY_BYTES, BODY_PATIENCE, DISCARDED_BYTES};
use super::works;

/// Why there is no body.
pub(super) enum BodyError {
    TooLarge,
    Incomplete,
}

pub(super) async fn read(body: Body) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    let mut length = 0;
    let mut chunks = body.into_data_stream();
    let reading = async {
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|_| BodyError::Incomplete)?;
            length += chunk.len();
            if length <= BODY_BYTES {
                bytes.extend_from_slice(&chunk);
            } else if length > DISCARDED_BYTES {
                break;
            }
        }
        Ok::<(), BodyError>(())
    };
    let Some(outcome) = works::waiting_for_client(tokio::time::timeout(BODY_PATIENCE, reading)).await else {
        return Err(BodyError::Incomplete); // answered otherwise there
    };
    match outcome {
        _ if length > BODY_BYTES => Err(BodyError::TooLarge),
        Ok(Ok(())) => Ok(bytes),
        Ok(Err(_)) | Err(_) => Err(BodyError::Incomplete),
    }
}

/// Whether `Content-Type` is `expected`, whatever its parameters.
pub(super) fn is_media_type(headers: &HeaderMap, expected: &str) -> bool {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(expected)
}
