//! The control interface: the Kafka Connect REST API for the sink, and the routes of the gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::error::Error;
use crate::clients::control::ConnectorStatus;
use crate::stages::gateway::routes::Routes;
use crate::stages::sink::connectors::Connectors;

/// Class of the only connector.
const CONNECTOR_CLASS: &str = "io.confluent.connect.s3.S3SinkConnector";

/// State shared by all requests.
#[derive(Clone)]
struct Control {
    connectors: Arc<Connectors>,
    routes: Arc<Routes>,
}

/// Returns the router of the control interface.
pub fn router(connectors: Arc<Connectors>, routes: Arc<Routes>) -> Router {
    Router::new()
        .route("/", get(about))
        .route("/connectors", get(list).post(create))
        .route("/connectors/{name}", get(describe).delete(delete))
        .route("/connectors/{name}/config", get(config).put(put_config))
        .route("/connectors/{name}/status", get(status))
        .route("/connectors/{name}/pause", put(pause))
        .route("/connectors/{name}/resume", put(resume))
        .route("/connectors/{name}/restart", post(restart))
        .route("/connectors/{name}/tasks", get(tasks))
        .route("/connectors/{name}/tasks/{task}/status", get(task_status))
        .route("/connectors/{name}/tasks/{task}/restart", post(restart_task))
        .route("/connector-plugins", get(plugins))
        .route("/api", get(api_status).put(api_deploy).delete(api_delete))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .with_state(Control { connectors, routes })
}

/// An error in the format of Kafka Connect.
struct ConnectError(StatusCode, String);

impl ConnectError {
    fn not_found(name: &str) -> Self {
        Self(StatusCode::NOT_FOUND, format!("Connector {name} not found"))
    }

    fn bad_request(message: String) -> Self {
        Self(StatusCode::BAD_REQUEST, message)
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        let status = if error.exit_code() == 2 {
            StatusCode::BAD_REQUEST
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for ConnectError {
    fn into_response(self) -> Response<Body> {
        json_response(self.0, &json!({ "error_code": self.0.as_u16(), "message": self.1 }))
    }
}

type ConnectResult = Result<Response<Body>, ConnectError>;

fn json_response(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Serialising plain data cannot fail.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty_response(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Completes a change even if the client disconnects before the response.
async fn run_to_completion<T: Send + 'static>(
    change: impl Future<Output = crate::base::error::Result<T>> + Send + 'static,
) -> Result<T, ConnectError> {
    let outcome = tokio::spawn(change).await;
    Ok(outcome
        .map_err(|error| ConnectError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??)
}

async fn about() -> Response<Body> {
    json_response(
        StatusCode::OK,
        &json!({ "version": env!("CARGO_PKG_VERSION"), "commit": "pinpipe", "kafka_cluster_id": "pinpipe-local" }),
    )
}

/// Returns the response to a refused request.
pub fn refuse(_: &Request, status: StatusCode, message: &str) -> Response<Body> {
    ConnectError(status, message.to_string()).into_response()
}

async fn not_found() -> ConnectError {
    ConnectError(StatusCode::NOT_FOUND, "HTTP 404 Not Found".into())
}

async fn method_not_allowed() -> ConnectError {
    ConnectError(StatusCode::METHOD_NOT_ALLOWED, "HTTP 405 Method Not Allowed".into())
}

async fn plugins() -> Response<Body> {
    json_response(
        StatusCode::OK,
        &json!([{ "class": CONNECTOR_CLASS, "type": "sink", "version": env!("CARGO_PKG_VERSION") }]),
    )
}

/// Lists the names of all connectors; with `?expand=status` or `?expand=info`, a JSON object keyed
/// by name.
async fn list(State(control): State<Control>, RawQuery(query): RawQuery) -> Response<Body> {
    let query = query.unwrap_or_default();
    let is_expanded =
        |what: &str| query.split('&').any(|pair| pair.split_once('=') == Some(("expand", what)));
    let (with_status, with_info) = (is_expanded("status"), is_expanded("info"));
    let statuses = control.connectors.statuses();
    if !with_status && !with_info {
        let names: Vec<String> = statuses.into_iter().map(|status| status.name).collect();
        return json_response(StatusCode::OK, &names);
    }
    let mut expanded = BTreeMap::new();
    for status in statuses {
        // A connector without properties has been deleted in the meantime.
        let Some(config) = control.connectors.config(&status.name) else {
            continue;
        };
        let mut parts = serde_json::Map::new();
        if with_info {
            parts.insert("info".into(), describe_json(&status.name, &config));
        }
        let name = status.name.clone();
        if with_status {
            parts.insert("status".into(), status_json(status));
        }
        expanded.insert(name, parts);
    }
    json_response(StatusCode::OK, &expanded)
}

fn describe_json(name: &str, config: &BTreeMap<String, String>) -> Value {
    json!({ "name": name, "config": config, "tasks": [{ "connector": name, "task": 0 }], "type": "sink" })
}

fn task_json(status: &ConnectorStatus) -> Value {
    let mut task = json!({ "id": 0, "state": status.state, "worker_id": "local", "records": status.records, "objects": status.objects });
    if let Some(trace) = &status.trace {
        task["trace"] = json!(trace);
    }
    task
}

fn status_json(status: ConnectorStatus) -> Value {
    let task = task_json(&status);
    let connector_state = if status.state == "FAILED" { "RUNNING" } else { &status.state };
    json!({ "name": status.name, "connector": { "state": connector_state, "worker_id": "local" }, "tasks": [task], "type": "sink" })
}

#[derive(Deserialize)]
struct NewConnector {
    name: String,
    config: BTreeMap<String, Value>,
}

/// Converts property values to strings: Kafka Connect also accepts numbers and booleans.
fn property_strings(config: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    config
        .into_iter()
        .map(|(key, value)| (key, value.as_str().map_or_else(|| value.to_string(), String::from)))
        .collect()
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ConnectError> {
    serde_json::from_slice(body).map_err(|error| {
        ConnectError(StatusCode::BAD_REQUEST, format!("cannot parse the request body: {error}"))
    })
}

/// Checks the name of a connector by the rules of Kafka Connect.
fn check_name(name: &str, properties: &BTreeMap<String, String>) -> Result<(), ConnectError> {
    let invalid = |problem: &str| {
        Err(ConnectError::bad_request(format!("Invalid value for configuration name: {problem}")))
    };
    if name.trim().is_empty() {
        return invalid("String may not be empty");
    }
    if name.chars().any(char::is_control) {
        return invalid("String may not contain control sequences");
    }
    match properties.get("name") {
        Some(included) if included != name => Err(ConnectError::bad_request(format!(
            "Connector name configuration ({included}) doesn't match connector name in the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

async fn create(State(control): State<Control>, body: Bytes) -> ConnectResult {
    let mut new: NewConnector = parse(&body)?;
    new.name = new.name.trim().to_string();
    if control.connectors.config(&new.name).is_some() {
        return Err(ConnectError(
            StatusCode::CONFLICT,
            format!("Connector {} already exists", new.name),
        ));
    }
    let (connectors, name, properties) =
        (control.connectors.clone(), new.name.clone(), property_strings(new.config));
    check_name(&name, &properties)?;
    run_to_completion(async move { connectors.put(&name, properties).await }).await?;
    describe_with_status(&control, &new.name, StatusCode::CREATED)
}

fn describe_with_status(control: &Control, name: &str, status: StatusCode) -> ConnectResult {
    let config = control.connectors.config(name).ok_or_else(|| ConnectError::not_found(name))?;
    Ok(json_response(status, &describe_json(name, &config)))
}

async fn describe(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    describe_with_status(&control, &name, StatusCode::OK)
}

async fn config(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let config = control.connectors.config(&name).ok_or_else(|| ConnectError::not_found(&name))?;
    Ok(json_response(StatusCode::OK, &config))
}

async fn put_config(
    State(control): State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> ConnectResult {
    let (connectors, connector_name, properties) =
        (control.connectors.clone(), name.clone(), property_strings(parse(&body)?));
    check_name(&name, &properties)?;
    let is_new =
        run_to_completion(async move { connectors.put(&connector_name, properties).await }).await?;
    describe_with_status(&control, &name, if is_new { StatusCode::CREATED } else { StatusCode::OK })
}

async fn status(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let status = control.connectors.status(&name).ok_or_else(|| ConnectError::not_found(&name))?;
    Ok(json_response(StatusCode::OK, &status_json(status)))
}

async fn tasks(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let config = control.connectors.config(&name).ok_or_else(|| ConnectError::not_found(&name))?;
    Ok(json_response(
        StatusCode::OK,
        &json!([{ "id": { "connector": name, "task": 0 }, "config": config }]),
    ))
}

/// Requires that the path names the only task of the local sink.
fn require_task(name: &str, task: &str) -> Result<(), ConnectError> {
    if task == "0" {
        Ok(())
    } else {
        Err(ConnectError(StatusCode::NOT_FOUND, format!("Unknown task: {name}-{task}")))
    }
}

async fn task_status(
    State(control): State<Control>,
    Path((name, task)): Path<(String, String)>,
) -> ConnectResult {
    let status = control.connectors.status(&name).ok_or_else(|| ConnectError::not_found(&name))?;
    require_task(&name, &task)?;
    Ok(json_response(StatusCode::OK, &task_json(&status)))
}

async fn restart_task(
    State(control): State<Control>,
    Path((name, task)): Path<(String, String)>,
) -> ConnectResult {
    require_task(&name, &task)?;
    restart(State(control), Path(name)).await
}

async fn pause(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    set_paused(&control, &name, true).await
}

async fn resume(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    set_paused(&control, &name, false).await
}

async fn set_paused(control: &Control, name: &str, paused: bool) -> ConnectResult {
    let (connectors, connector_name) = (control.connectors.clone(), name.to_string());
    if run_to_completion(async move { connectors.set_paused(&connector_name, paused).await })
        .await?
    {
        Ok(empty_response(StatusCode::ACCEPTED))
    } else {
        Err(ConnectError::not_found(name))
    }
}

async fn restart(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let (connectors, connector_name) = (control.connectors.clone(), name.clone());
    if run_to_completion(async move { Ok(connectors.restart(&connector_name).await) }).await? {
        Ok(empty_response(StatusCode::NO_CONTENT))
    } else {
        Err(ConnectError::not_found(&name))
    }
}

async fn delete(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let (connectors, connector_name) = (control.connectors.clone(), name.clone());
    if run_to_completion(async move { connectors.delete(&connector_name).await }).await? {
        Ok(empty_response(StatusCode::NO_CONTENT))
    } else {
        Err(ConnectError::not_found(&name))
    }
}

async fn api_status(State(control): State<Control>) -> ConnectResult {
    match control.routes.current() {
        Some(deployment) => Ok(json_response(StatusCode::OK, &deployment)),
        None => Err(ConnectError(StatusCode::NOT_FOUND, "no routes are deployed".into())),
    }
}

async fn api_deploy(State(control): State<Control>) -> ConnectResult {
    let is_new = control.routes.current().is_none();
    let deployment = control.routes.deploy()?;
    Ok(json_response(if is_new { StatusCode::CREATED } else { StatusCode::OK }, &deployment))
}

async fn api_delete(State(control): State<Control>) -> ConnectResult {
    if control.routes.delete()? {
        Ok(empty_response(StatusCode::NO_CONTENT))
    } else {
        Err(ConnectError(StatusCode::NOT_FOUND, "no routes are deployed".into()))
    }
}
