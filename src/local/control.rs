//! The control interface: Kafka Connect's REST API for the sink, and the gateway's routes.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::base::error::Error;
use crate::clients::control::ConnectorStatus;
use crate::stages::gateway::routes::Routes;
use crate::stages::sink::connectors::Connectors;

/// What requests work on.
#[derive(Clone)]
struct Control {
    connectors: Arc<Connectors>,
    routes: Arc<Routes>,
}

/// The interface as a router.
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
        .route("/api", get(api_status).put(api_deploy).delete(api_delete))
        .with_state(Control { connectors, routes })
}

/// An error as Kafka Connect gives it.
struct ConnectError(StatusCode, String);

impl ConnectError {
    fn not_found(name: &str) -> Self {
        Self(StatusCode::NOT_FOUND, format!("Connector {name} not found"))
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
        answer(
            self.0,
            &json!({ "error_code": self.0.as_u16(), "message": self.1 }),
        )
    }
}

type ConnectResult = Result<Response<Body>, ConnectError>;

fn answer(status: StatusCode, body: &impl Serialize) -> Response<Body> {
    // Plain data always serialises.
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap_or_default()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Finishes a change even where the client does not wait for its answer.
async fn to_the_end<T: Send + 'static>(
    change: impl Future<Output = crate::base::error::Result<T>> + Send + 'static,
) -> Result<T, ConnectError> {
    let done = tokio::spawn(change).await;
    Ok(done.map_err(|error| ConnectError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))??)
}

async fn about() -> Response<Body> {
    answer(
        StatusCode::OK,
        &json!({ "version": env!("CARGO_PKG_VERSION"), "commit": "pinpipe", "kafka_cluster_id": "pinpipe-local" }),
    )
}

async fn list(State(control): State<Control>) -> Response<Body> {
    let names: Vec<String> = control
        .connectors
        .statuses()
        .await
        .into_iter()
        .map(|status| status.name)
        .collect();
    answer(StatusCode::OK, &names)
}

#[derive(Deserialize)]
struct NewConnector {
    name: String,
    config: BTreeMap<String, Value>,
}

/// Kafka Connect takes numbers and booleans for texts.
fn texts(config: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    config
        .into_iter()
        .map(|(key, value)| {
            (
                key,
                value
                    .as_str()
                    .map_or_else(|| value.to_string(), String::from),
            )
        })
        .collect()
}

fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ConnectError> {
    serde_json::from_slice(body).map_err(|error| {
        ConnectError(
            StatusCode::BAD_REQUEST,
            format!("the body does not fit: {error}"),
        )
    })
}

async fn create(State(control): State<Control>, body: Bytes) -> ConnectResult {
    let new: NewConnector = parse(&body)?;
    if control.connectors.config(&new.name).await.is_some() {
        return Err(ConnectError(
            StatusCode::CONFLICT,
            format!("Connector {} already exists", new.name),
        ));
    }
    let (connectors, name, properties) = (
        control.connectors.clone(),
        new.name.clone(),
        texts(new.config),
    );
    to_the_end(async move { connectors.put(&name, properties).await }).await?;
    described(&control, &new.name, StatusCode::CREATED).await
}

async fn described(control: &Control, name: &str, status: StatusCode) -> ConnectResult {
    let config = control
        .connectors
        .config(name)
        .await
        .ok_or_else(|| ConnectError::not_found(name))?;
    Ok(answer(
        status,
        &json!({ "name": name, "config": config, "tasks": [{ "connector": name, "task": 0 }], "type": "sink" }),
    ))
}

async fn describe(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    described(&control, &name, StatusCode::OK).await
}

async fn config(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let config = control
        .connectors
        .config(&name)
        .await
        .ok_or_else(|| ConnectError::not_found(&name))?;
    Ok(answer(StatusCode::OK, &config))
}

async fn put_config(
    State(control): State<Control>,
    Path(name): Path<String>,
    body: Bytes,
) -> ConnectResult {
    let (connectors, own, properties) = (
        control.connectors.clone(),
        name.clone(),
        texts(parse(&body)?),
    );
    let is_new = to_the_end(async move { connectors.put(&own, properties).await }).await?;
    described(
        &control,
        &name,
        if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
    )
    .await
}

async fn status(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let ConnectorStatus {
        name,
        state,
        trace,
        records,
        objects,
    } = control
        .connectors
        .status(&name)
        .await
        .ok_or_else(|| ConnectError::not_found(&name))?;
    let connector_state = if state == "FAILED" { "RUNNING" } else { &state };
    let mut task = json!({ "id": 0, "state": state, "worker_id": "local", "records": records, "objects": objects });
    if let Some(trace) = trace {
        task["trace"] = json!(trace);
    }
    Ok(answer(
        StatusCode::OK,
        &json!({ "name": name, "connector": { "state": connector_state, "worker_id": "local" }, "tasks": [task], "type": "sink" }),
    ))
}

async fn pause(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    set_paused(&control, &name, true).await
}

async fn resume(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    set_paused(&control, &name, false).await
}

async fn set_paused(control: &Control, name: &str, paused: bool) -> ConnectResult {
    let (connectors, own) = (control.connectors.clone(), name.to_string());
    if to_the_end(async move { connectors.set_paused(&own, paused).await }).await? {
        Ok(empty(StatusCode::ACCEPTED))
    } else {
        Err(ConnectError::not_found(name))
    }
}

async fn restart(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let (connectors, own) = (control.connectors.clone(), name.clone());
    if to_the_end(async move { Ok(connectors.restart(&own).await) }).await? {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(ConnectError::not_found(&name))
    }
}

async fn delete(State(control): State<Control>, Path(name): Path<String>) -> ConnectResult {
    let (connectors, own) = (control.connectors.clone(), name.clone());
    if to_the_end(async move { connectors.delete(&own).await }).await? {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(ConnectError::not_found(&name))
    }
}

async fn api_status(State(control): State<Control>) -> ConnectResult {
    match control.routes.current() {
        Some(deployment) => Ok(answer(StatusCode::OK, &deployment)),
        None => Err(ConnectError(
            StatusCode::NOT_FOUND,
            "no routes are deployed".into(),
        )),
    }
}

async fn api_deploy(State(control): State<Control>) -> ConnectResult {
    let is_new = control.routes.current().is_none();
    let deployment = control.routes.deploy()?;
    Ok(answer(
        if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        },
        &deployment,
    ))
}

async fn api_delete(State(control): State<Control>) -> ConnectResult {
    if control.routes.delete()? {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(ConnectError(
            StatusCode::NOT_FOUND,
            "no routes are deployed".into(),
        ))
    }
}
