//! Tenants are kept apart: by every route that names an object by its id, and by the database itself.
//!
//! A new route with an id belongs into [`attempts`]; a new table with tenants' rows is found by itself.

use std::collections::{BTreeMap, BTreeSet};

use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;

use crate::support::cli::Cli;
use crate::support::issuer::{agent_body, claims};
use crate::support::{Client, ISSUER, Issuer, TestDatabase, eventually};

/// What somebody may try with an id. `{agent}` and the like stand for ids; see [`Ids`].
struct Attempt {
    method: Method,
    path: &'static str,
    body: Body,
}

enum Body {
    Nothing,
    Json(Value),
    Form(&'static [(&'static str, &'static str)]),
}

/// Every route of the API that names an object by its id.
fn attempts() -> Vec<Attempt> {
    let bare = |method: Method, path: &'static str| Attempt { method, path, body: Body::Nothing };
    let json =
        |method: Method, path: &'static str, body: Value| Attempt { method, path, body: Body::Json(body) };
    let form = |path: &'static str, form: &'static [(&'static str, &'static str)]| Attempt {
        method: Method::POST,
        path,
        body: Body::Form(form),
    };
    let administrator = json!({ "email": "intruder@example.com" });
    vec![
        bare(Method::GET, "/api/v1/agents/{agent}"),
        json(Method::PATCH, "/api/v1/agents/{agent}", json!({ "version": "6.6.6" })),
        bare(Method::DELETE, "/api/v1/agents/{agent}"),
        bare(Method::POST, "/api/v1/agents/{agent}/suspend"),
        bare(Method::POST, "/api/v1/agents/{agent}/reactivate"),
        bare(Method::GET, "/api/v1/agents/{agent}/credentials"),
        json(Method::POST, "/api/v1/agents/{agent}/credentials", json!({})),
        bare(Method::GET, "/api/v1/agents/{agent}/credentials/{credential}"),
        bare(Method::DELETE, "/api/v1/agents/{agent}/credentials/{credential}"),
        json(Method::POST, "/api/v1/agents/{agent}/credentials/{credential}/rotate", json!({})),
        bare(Method::POST, "/api/v1/agents/{agent}/credentials/{credential}/revoke"),
        json(
            Method::PATCH,
            "/api/v1/agents/{agent}/credentials/{credential}",
            json!({ "expires_at": "2030-01-01T00:00:00Z" }),
        ),
        // One's own agent with another's credential, and the other way round.
        json(
            Method::PATCH,
            "/api/v1/agents/{own_agent}/credentials/{credential}",
            json!({ "expires_at": "2030-01-01T00:00:00Z" }),
        ),
        bare(Method::GET, "/api/v1/agents/{agent}/credentials/{own_credential}"),
        bare(Method::POST, "/api/v1/agents/{own_agent}/credentials/{credential}/revoke"),
        bare(Method::GET, "/api/v1/agents/{own_agent}/credentials/{credential}"),
        bare(Method::DELETE, "/api/v1/agents/{own_agent}/credentials/{credential}"),
        json(Method::POST, "/api/v1/agents/{own_agent}/credentials/{credential}/rotate", json!({})),
        bare(Method::GET, "/api/v1/tenants/{tenant}"),
        json(Method::PATCH, "/api/v1/tenants/{tenant}", json!({ "plan": "paid" })),
        bare(Method::DELETE, "/api/v1/tenants/{tenant}"),
        bare(Method::POST, "/api/v1/tenants/{tenant}/suspend"),
        bare(Method::POST, "/api/v1/tenants/{tenant}/reactivate"),
        json(Method::POST, "/api/v1/tenants/{tenant}/administrators", administrator),
        bare(Method::GET, "/api/v1/resource-servers/{resource_server}"),
        json(Method::PATCH, "/api/v1/resource-servers/{resource_server}", json!({ "name": "mine" })),
        bare(Method::DELETE, "/api/v1/resource-servers/{resource_server}"),
        // In a body.
        json(
            Method::POST,
            "/api/v1/resource-servers",
            json!({ "identifier": "https://intruder.example", "agent_id": "{agent}" }),
        ),
        json(
            Method::PATCH,
            "/api/v1/resource-servers/{own_resource_server}",
            json!({ "agent_id": "{agent}" }),
        ),
        bare(Method::GET, "/api/v1/audit/{audit_event}"),
        bare(Method::GET, "/api/v1/audit?actor={agent}"),
        bare(Method::GET, "/api/v1/audit?target_id={credential}"),
        bare(Method::GET, "/api/v1/audit/export?actor={agent}"),
        json(Method::POST, "/api/v1/revocations", json!({ "token": "{token}" })),
        json(Method::POST, "/api/v1/revocations", json!({ "jti": "{jti}" })),
        json(Method::POST, "/api/v1/revocations", json!({ "agent_id": "{agent}" })),
        json(Method::POST, "/api/v1/revocations", json!({ "credential_id": "{credential}" })),
        json(Method::POST, "/api/v1/revocations", json!({ "tenant_id": "{tenant}" })),
        form("/oauth2/v1/introspect", &[("token", "{token}")]),
        form("/oauth2/v1/revoke", &[("token", "{token}")]),
        form("/oauth2/v1/revoke", &[("jti", "{jti}")]),
        form("/oauth2/v1/token", &[("grant_type", "client_credentials"), ("resource", "{identifier}")]),
        form("/oauth2/v1/token", &[("grant_type", "client_credentials"), ("audience", "{identifier}")]),
    ]
}

/// What stands for `{agent}` and the others.
type Ids = BTreeMap<&'static str, String>;

/// A tenant that has one of everything.
struct Furnished {
    administrator: Client,
    token: String,
    ids: Ids,
}

async fn furnish(issuer: &Issuer, administrator: &Client) -> Furnished {
    let token = issuer.management_token(administrator).await;
    let agent =
        issuer.register(&token, &agent_body(&["orders:read"])).await["agent_id"].as_str().unwrap().to_owned();
    let made = async |path: &str, body: Value| {
        let response = issuer.post(path).bearer_auth(&token).json(&body).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json::<Value>().await.unwrap()
    };
    let credential = made(&format!("/api/v1/agents/{agent}/credentials"), json!({})).await;
    let identifier = format!("https://{}.example", administrator.tenant);
    let server =
        made("/api/v1/resource-servers", json!({ "identifier": identifier, "agent_id": agent })).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let client = Client {
        tenant: administrator.tenant.clone(),
        id: agent.clone(),
        secret: text(&credential["client_secret"]),
    };
    // Of one of its tokens there is a revocation, of another one a rule.
    issuer.revoke(&client, &issuer.token(&client).await).await;
    issuer
        .database
        .execute(&format!(
            "insert into not_before_rules (level, subject, tenant_id, not_before) values (2, uuid_send('{agent}'), '{}', 1)",
            administrator.tenant
        ))
        .await;
    let live = issuer.token(&client).await;
    let events = issuer.get("/api/v1/audit?limit=1").bearer_auth(&token).send().await.unwrap();
    let event = text(&events.json::<Value>().await.unwrap()["items"][0]["event_id"]);
    let ids = [
        ("agent", agent),
        ("credential", text(&credential["credential_id"])),
        ("tenant", client.tenant.clone()),
        ("resource_server", text(&server["resource_server_id"])),
        ("identifier", identifier),
        ("audit_event", event),
        ("jti", text(&claims(&live)["jti"])),
        ("token", live),
    ];
    Furnished { administrator: administrator.clone(), token, ids: ids.into() }
}

/// Ids of nothing at all, each in the form of its kind.
fn nobodys() -> Ids {
    let uuid = "3f1f8f0e-5a55-4c55-8f0e-5a554c558f0e".to_owned();
    [
        ("agent", uuid.clone()),
        ("credential", uuid.clone()),
        ("tenant", uuid.clone()),
        ("resource_server", uuid.clone()),
        ("identifier", "https://nobody.example".to_owned()),
        ("audit_event", uuid.clone()),
        ("jti", "3f1f8f0e-5a55-8c55-8f0e-5a554c558f0e".to_owned()),
        ("token", "e30.e30.e30".to_owned()),
    ]
    .into()
}

fn filled(template: &str, ids: &Ids, own: &Ids) -> String {
    let mut text = template.to_owned();
    for (name, id) in ids {
        text = text.replace(&format!("{{{name}}}"), id);
    }
    for (name, id) in own {
        text = text.replace(&format!("{{own_{name}}}"), id);
    }
    text
}

impl Attempt {
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    /// Made by `who` with these ids.
    async fn make(&self, issuer: &Issuer, who: &Furnished, ids: &Ids, if_match: &str) -> Response {
        let url = format!("{}{}", issuer.url, filled(self.path, ids, &who.ids));
        let request = issuer.http.request(self.method.clone(), url);
        let request = match &self.body {
            Body::Nothing => request.bearer_auth(&who.token),
            Body::Json(body) => {
                let body = filled(&body.to_string(), ids, &who.ids);
                request.bearer_auth(&who.token).header("content-type", "application/json").body(body)
            }
            Body::Form(form) => {
                let form: Vec<(&str, String)> =
                    form.iter().map(|(name, value)| (*name, filled(value, ids, &who.ids))).collect();
                request.basic_auth(&who.administrator.id, Some(&who.administrator.secret)).form(&form)
            }
        };
        let request =
            if matches!(self.body, Body::Form(_)) { request } else { request.header("if-match", if_match) };
        request.send().await.unwrap()
    }
}

/// All of a response but what differs between any two, with names in place of ids.
async fn fingerprint(response: Response, ids: &Ids) -> String {
    let unsteady = |name: &str| name == "date" || name == "x-request-id" || name.contains("ratelimit");
    let headers: BTreeMap<String, String> = response
        .headers()
        .iter()
        .filter(|(name, _)| !unsteady(name.as_str()))
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    let mut text = format!("{} {headers:?} ", response.status());
    text.push_str(&response.text().await.unwrap());
    for (name, id) in ids {
        text = text.replace(id, &format!("{{{name}}}"));
    }
    text
}

/// When a credential was last used, and how many tokens a process has still in hand of the quota.
const BOOKED: &[&str] = &["credential_uses", "quota_usage"];

/// Every row of a tenant, by table, once its events are sealed. What the issuer books of its own accord, now and then, is
/// left out.
async fn rows_of(database: &TestDatabase, tenant: &str) -> BTreeMap<String, Vec<Value>> {
    eventually("every event is sealed", 10, async || {
        let sql = format!("select count(*) from audit_queue where tenant_id = '{tenant}'");
        (database.value::<i64>(&sql).await == 0).then_some(())
    })
    .await;
    let mut rows = BTreeMap::new();
    let tables = tables_of_tenants(&database.pool).await;
    for table in tables.into_iter().filter(|table| !BOOKED.contains(&table.as_str())) {
        let sql = format!(
            "select to_jsonb(t) from {table} t where tenant_id = '{tenant}' order by to_jsonb(t)::text"
        );
        let found: Vec<Value> =
            sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&database.pool).await.unwrap();
        rows.insert(table, found);
    }
    rows
}

fn assert_same(after: &BTreeMap<String, Vec<Value>>, before: &BTreeMap<String, Vec<Value>>) {
    for (table, rows) in after {
        assert_eq!(rows, &before[table], "{table}");
    }
}

/// Every table that has a column `tenant_id`, partitions too.
async fn tables_of_tenants(pool: &PgPool) -> BTreeSet<String> {
    let names: Vec<String> = sqlx::query_scalar(
        "select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
         where a.attname = 'tenant_id' and not a.attisdropped and c.relkind in ('r', 'p') and c.relnamespace = 'public'::regnamespace",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    names.into_iter().collect()
}

#[tokio::test]
async fn another_tenant_s_ids_are_as_good_as_made_up() {
    let issuer = Issuer::start().await;
    let victim = furnish(&issuer, &issuer.other_tenant().await).await;
    let intruder = furnish(&issuer, &issuer.other_tenant().await).await;
    let platform = furnish(&issuer, &issuer.administrator).await;

    for victim in [&victim, &platform] {
        let before = rows_of(&issuer.database, &victim.administrator.tenant).await;
        for attempt in attempts() {
            let name = attempt.name();
            // The victim's own entity tag: nothing but the tenant is to be in the way.
            let mut etag = "\"1\"".to_owned();
            // (Tenants aren't the victim's to read, and being refused would be an event of its own.)
            let readable = !attempt.path.contains("{tenant}");
            if readable && [Method::PATCH, Method::DELETE].contains(&attempt.method) {
                let read =
                    issuer.get(&filled(attempt.path, &victim.ids, &victim.ids)).bearer_auth(&victim.token);
                if let Some(value) = read.send().await.unwrap().headers().get("etag") {
                    etag = value.to_str().unwrap().to_owned();
                }
            }

            let theirs = attempt.make(&issuer, &intruder, &victim.ids, &etag).await;
            let theirs = fingerprint(theirs, &victim.ids).await;
            let nobodys = nobodys();
            let made_up = attempt.make(&issuer, &intruder, &nobodys, &etag).await;
            assert!(made_up.status() != StatusCode::CREATED && !made_up.status().is_server_error(), "{name}");
            assert_eq!(theirs, fingerprint(made_up, &nobodys).await, "{name}");

            assert!(!theirs.starts_with("429 "), "a limit says nothing about tenants");
            let missing = theirs.contains(r#""code":"NOT_FOUND""#) || theirs.starts_with("405 ");
            assert!(!missing, "there is no {name}: {theirs}");
        }
        assert_same(&rows_of(&issuer.database, &victim.administrator.tenant).await, &before);
    }

    // None of this would say anything if the ids weren't right.
    for attempt in attempts().iter().filter(|attempt| attempt.method == Method::GET) {
        if attempt.path.contains("{tenant}") {
            continue;
        }
        let response = attempt.make(&issuer, &victim, &victim.ids, "*").await;
        assert_eq!(response.status(), StatusCode::OK, "{}", attempt.name());
    }
    assert!(issuer.is_active(&victim.administrator, &victim.ids["token"]).await);
}

#[tokio::test]
async fn lists_have_one_s_own_only() {
    let issuer = Issuer::start().await;
    let victim = furnish(&issuer, &issuer.other_tenant().await).await;
    let intruder = furnish(&issuer, &issuer.other_tenant().await).await;
    let list = async |who: &Furnished, path: &str| {
        let response = issuer.get(path).bearer_auth(&who.token).send().await.unwrap();
        (response.status(), response.json::<Value>().await.unwrap())
    };
    for path in ["/api/v1/agents", "/api/v1/resource-servers", "/api/v1/audit"] {
        let (status, body) = list(&intruder, path).await;
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            assert_ne!(path, "/api/v1/resource-servers");
            continue;
        }
        assert_eq!(status, StatusCode::OK);
        let text = body.to_string();
        assert!(
            text.contains(&intruder.administrator.tenant) && !text.contains(&victim.administrator.tenant),
            "{text}"
        );

        // Another tenant's cursor is a place in the order, and no more.
        let (_, first) = list(&victim, &format!("{path}?limit=1")).await;
        let cursor = first["next_cursor"].as_str().unwrap();
        let (_, body) = list(&intruder, &format!("{path}?cursor={cursor}")).await;
        assert!(!body.to_string().contains(&victim.administrator.tenant), "{body}");
    }
    let (status, body) = list(&intruder, "/api/v1/tenants").await;
    assert_eq!((status, &body["code"]), (StatusCode::FORBIDDEN, &json!("INSUFFICIENT_SCOPE")));
    let (status, body) = list(&intruder, "/api/v1/tenant").await;
    assert_eq!((status, &body["tenant_id"]), (StatusCode::OK, &json!(intruder.administrator.tenant)));
}

#[tokio::test]
async fn platform_scopes_count_in_the_platform_s_tenant_only() {
    let issuer = Issuer::start().await;
    let other = issuer.other_tenant().await;
    // No API lets a tenant's administrator have them, so it takes tampering.
    issuer
        .database
        .execute(&format!(
            "update agents set scopes = scopes || '{{tenants:read,tenants:write}}' where agent_id = '{}'",
            other.id
        ))
        .await;
    let token = issuer.grant(&other, &[("resource", ISSUER)]).await;
    assert!(token["scope"].as_str().unwrap().contains("tenants:write"), "the token says so");
    let token = token["access_token"].as_str().unwrap();
    for path in ["/api/v1/tenants".to_owned(), format!("/api/v1/tenants/{}", other.tenant)] {
        let response = issuer.get(&path).bearer_auth(token).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
    }
    let request = issuer.post("/api/v1/tenants").bearer_auth(token).json(&json!({ "name": "mine" }));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn every_table_of_tenants_is_confined() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let tables = tables_of_tenants(&database.pool).await;
    assert!(tables.len() >= 7, "{tables:?}");
    for table in &tables {
        let forced: bool = database
            .value(&format!(
                "select relrowsecurity and relforcerowsecurity from pg_class where oid = '{table}'::regclass"
            ))
            .await;
        assert!(forced, "{table} has tenants' rows: enable and force row-level security");
    }
    // No policy opens what another one closes, or sees more than it lets be written.
    let loose: Vec<String> = sqlx::query_scalar(
        "select tablename || ': ' || policyname from pg_policies
         where permissive = 'PERMISSIVE' and (qual not like '%countersign.tenant%' or with_check not like '%countersign.tenant%')",
    )
    .fetch_all(&database.pool)
    .await
    .unwrap();
    assert!(loose.is_empty(), "{loose:?}");
}

#[tokio::test]
async fn the_database_itself_keeps_tenants_apart() {
    let issuer = Issuer::start().await;
    let victim = furnish(&issuer, &issuer.other_tenant().await).await.administrator.tenant;
    let intruder = furnish(&issuer, &issuer.other_tenant().await).await.administrator.tenant;
    let before = rows_of(&issuer.database, &victim).await;
    for table in [
        "tenants",
        "agents",
        "credentials",
        "resource_servers",
        "identifier_owners",
        "revocations",
        "not_before_rules",
    ] {
        assert!(!before[table].is_empty(), "nothing in {table} to be kept from anybody");
    }
    // As the issuer connects; not as the superuser of the other tests.
    let pool = PgPool::connect(&issuer.database.url).await.unwrap();
    for table in &tables_of_tenants(&issuer.database.pool).await {
        let count = format!("select count(*) from {table}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&pool).await.unwrap();
        assert_eq!(count, 0, "{table}, where no tenant is set");

        let run = async |sql: String| {
            let mut transaction = pool.begin().await.unwrap();
            let set = format!("set local countersign.tenant = '{intruder}'");
            sqlx::query(AssertSqlSafe(set)).execute(&mut *transaction).await.unwrap();
            let done = sqlx::query(AssertSqlSafe(sql)).execute(&mut *transaction).await;
            transaction.commit().await.unwrap();
            done.map(|done| done.rows_affected())
        };
        let theirs = format!("where tenant_id = '{victim}'");
        assert_eq!(run(format!("select from {table} {theirs}")).await.unwrap(), 0, "{table}");
        // An append-only table refuses it altogether.
        for sql in [
            format!("update {table} set tenant_id = tenant_id {theirs}"),
            format!("update {table} set tenant_id = '{intruder}' {theirs}"),
            format!("delete from {table} {theirs}"),
        ] {
            assert_eq!(run(sql.clone()).await.unwrap_or_default(), 0, "{sql}");
        }
        // Nor can a row be put there: one's own be given away, or theirs be written again.
        let given =
            run(format!("update {table} set tenant_id = '{victim}' where tenant_id = '{intruder}'")).await;
        let rows = rows_of(&issuer.database, &intruder).await;
        assert!(given.is_err() || rows.get(table).is_none_or(Vec::is_empty), "{table}: {given:?}");
        if let Some(row) = before.get(table).and_then(|rows| rows.first()) {
            let row = row.to_string().replace('\'', "''");
            let columns: String = issuer
                .database
                .value(&format!(
                    "select string_agg(quote_ident(attname), ', ') from pg_attribute
                     where attrelid = '{table}'::regclass and attnum > 0 and not attisdropped and attgenerated = ''"
                ))
                .await;
            let written = run(format!(
                "insert into {table} ({columns}) overriding system value
                 select {columns} from jsonb_populate_record(null::{table}, '{row}')"
            ));
            let refused = written.await.unwrap_err().to_string();
            assert!(refused.contains("row-level security"), "{table}: {refused}");
        }
    }
    assert_same(&rows_of(&issuer.database, &victim).await, &before);
}

#[tokio::test]
async fn a_role_that_escapes_confinement_may_not_serve() {
    let (database, _) = TestDatabase::bootstrapped().await;
    let bypassing = format!("{}_bypassing", database.name);
    let refused = |url: &str| Cli::new(url).run(&["serve"]).expect_failure();
    database.create_role(&bypassing, "bypassrls").await;
    let said = refused(&database.url_as(&bypassing));
    database.execute(&format!("drop role {bypassing}")).await;
    assert!(
        said.starts_with(&format!("the role `{bypassing}` in DATABASE_URL bypasses row-level security")),
        "{said}"
    );

    let superuser: String = database.value("select current_user::text").await;
    let said = refused(&database.url_as(""));
    assert!(
        said.starts_with(&format!("the role `{superuser}` in DATABASE_URL bypasses row-level security")),
        "{said}"
    );
}
