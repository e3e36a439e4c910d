//! An administrator at work on one of the collections below `/api/v1/`.

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;

use super::Issuer;

/// Who works, and where.
pub(crate) struct Desk {
    pub(crate) issuer: Issuer,
    /// The platform's administrator's.
    pub(crate) token: String,
    collection: &'static str,
}

impl Desk {
    /// At an issuer of its own; `collection` as in `tenants`.
    pub(crate) async fn start(collection: &'static str) -> Self {
        let issuer = Issuer::start().await;
        let token = issuer.management_token(&issuer.administrator).await;
        Self { issuer, token, collection }
    }

    /// `path`: what follows the collection's.
    pub(crate) fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let url = format!("{}/api/v1/{}{path}", self.issuer.url, self.collection);
        let method: Method = method.parse().unwrap();
        self.issuer.http.request(method, url).bearer_auth(&self.token)
    }

    pub(crate) async fn create(&self, body: &Value) -> Response {
        self.request("POST", "").json(body).send().await.unwrap()
    }

    pub(crate) async fn created(&self, body: &Value) -> Value {
        let response = self.create(body).await;
        let status = response.status();
        let body: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::CREATED, "{body}");
        body
    }

    pub(crate) async fn read(&self, id: &str) -> Response {
        self.request("GET", &format!("/{id}")).send().await.unwrap()
    }

    /// Whatever its version.
    pub(crate) async fn patch(&self, id: &str, body: &Value) -> Response {
        self.request("PATCH", &format!("/{id}")).header("if-match", "*").json(body).send().await.unwrap()
    }

    /// Something that is done to one of them, by the name of its path; `decommission` is `DELETE`.
    pub(crate) async fn to(&self, id: &str, what: &str) -> Response {
        let request = match what {
            "decommission" => self.request("DELETE", &format!("/{id}")),
            _ => self.request("POST", &format!("/{id}/{what}")),
        };
        request.send().await.unwrap()
    }
}
