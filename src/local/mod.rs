//! The local stack: broker, Kinesis endpoint, gateway and sink in one process, each with the
//! protocol of the service that it replaces.

pub mod broker;
pub mod control;
pub mod http_guard;
pub mod http_server;
pub mod kinesis;
pub mod listener;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::config::data_dir::{self, DataEntry};
use crate::base::config::runtime::{Addresses, Runtime};
use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result};
use crate::base::fs::FileLock;
use crate::base::output::table::Table;
use crate::base::output::{Printer, Report};
use crate::base::shutdown::shutdown_signal;
use crate::local::http_guard::guard;
use crate::local::http_server::serve;
use crate::stages::gateway::routes::Routes;
use crate::stages::gateway::{self, Gateway};
use crate::stages::sink::connectors::Connectors;

/// Time for requests in flight to finish when the stack stops. The sum of this time and the maximum
/// time of [`Connectors::stop_all`] is less than ten seconds.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(4);

/// Time within which a request to the Kinesis endpoint or the control interface must be received
/// and answered. The gateway has limits of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Command-line options of the local stack.
#[derive(Debug, Clone, Default)]
pub struct LocalOptions {
    /// Use free ports instead of the configured ones
    pub any_port: bool,
}

/// The addresses of the local stack, printed as a table.
#[derive(Debug, Serialize)]
pub struct LocalReport {
    pub pid: u32,
    pub data_dir: PathBuf,
    pub addresses: Addresses,
}

impl Report for LocalReport {
    fn text(&self) -> String {
        let mut table = Table::new(["service", "address", "protocol"]);
        table.row(["kafka", &self.addresses.kafka, "Kafka protocol"]);
        table.row([
            "gateway",
            &format!("http://{}", self.addresses.gateway),
            "Kafka REST v2, /streams",
        ]);
        table.row(["kinesis", &format!("http://{}", self.addresses.kinesis), "Kinesis API"]);
        table.row([
            "control",
            &format!("http://{}", self.addresses.control),
            "Kafka Connect REST (sink), /api (routes)",
        ]);
        format!("{}\ndata in {}; Ctrl-C stops", table.render(), self.data_dir.display())
    }
}

/// A running local stack.
pub struct LocalStack {
    pub addresses: Addresses,
    data_dir: PathBuf,
    connectors: Arc<Connectors>,
    servers: JoinSet<()>,
    stop: CancellationToken,
    /// Held while the stack runs: a data folder has at most one stack.
    _lock: FileLock,
}

impl LocalStack {
    /// Starts all servers on the configured ports; port 0 selects a free port.
    ///
    /// # Errors
    /// The data folder is in use or not writable; `local.host` is invalid; a port is in use.
    pub async fn start(config: &Config) -> Result<Self> {
        let data_dir = &config.data_dir;
        data_dir::create(data_dir)?;
        let lock = lock(data_dir)?;
        let host: IpAddr = match config.local.host.as_str() {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host.parse().context(|| {
                format!("invalid `local.host`: expected an IP address, got `{host}`")
            })?,
        };
        if host.is_unspecified() {
            return Err(Error::usage(format!(
                "`local.host` cannot be `{host}`: Kafka clients connect to this address"
            ))
            .hint("set `local.host` to one address of this machine, such as 127.0.0.1"));
        }
        let kafka = bind(host, config.local.kafka_port, "kafka").await?;
        let gateway_listener = bind(host, config.local.gateway_port, "gateway").await?;
        let kinesis_listener = bind(host, config.local.kinesis_port, "kinesis").await?;
        let control_listener = bind(host, config.local.control_port, "control").await?;
        let address = |listener: &TcpListener| {
            listener.local_addr().context(|| "cannot read the address of a server")
        };
        let advertised = address(&kafka)?;
        let addresses = Addresses {
            kafka: advertised.to_string(),
            gateway: address(&gateway_listener)?.to_string(),
            kinesis: address(&kinesis_listener)?.to_string(),
            control: address(&control_listener)?.to_string(),
        };
        let mut servers = JoinSet::new();
        let stop = CancellationToken::new();

        let broker = broker::Broker::open(&DataEntry::Kafka.path(data_dir), advertised)?;
        servers.spawn(run_until(stop.clone(), broker.serve(kafka)));
        let retention = Duration::from_secs(u64::from(config.kinesis.retention_hours) * 3600);
        let store = kinesis::store::Store::open(
            &DataEntry::Kinesis.path(data_dir),
            retention,
            &config.aws.region,
        )
        .await?;
        let kinesis_router = kinesis::server::router(store).layer(from_fn(limit_time));
        let kinesis_router = guard(kinesis_router, kinesis::server::refuse);
        servers.spawn(serve(kinesis_listener, kinesis_router, stop.clone()));

        let local_config = config.clone().with_addresses(&addresses);
        let routes = Arc::new(Routes::open(data_dir)?);
        let gateway_router = Gateway::new(&local_config, routes.clone()).await?.router();
        let gateway_router = guard(gateway_router, gateway::response::refuse);
        servers.spawn(serve(gateway_listener, gateway_router, stop.clone()));
        let connectors = Connectors::open(&local_config).await?;
        let control_router = control::router(connectors.clone(), routes).layer(from_fn(limit_time));
        let control_router = guard(control_router, control::refuse);
        servers.spawn(serve(control_listener, control_router, stop.clone()));

        Runtime { pid: std::process::id(), addresses: addresses.clone() }.write(data_dir)?;
        Ok(Self { addresses, data_dir: data_dir.clone(), connectors, servers, stop, _lock: lock })
    }

    /// Stops the connectors, finishes requests in flight and closes all servers. Takes at most ten
    /// seconds: a part that does not stop in time is abandoned, and recovers at the next start.
    pub async fn stop(mut self) {
        Runtime::remove(&self.data_dir);
        self.connectors.stop_all().await;
        self.stop.cancel();
        let drain = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, drain).await.is_err() {
            tracing::debug!("some connections were still open when the local stack stopped");
        }
    }
}

impl Drop for LocalStack {
    /// Removes the address file, so that no client uses the addresses of a stack that was dropped
    /// without [`Self::stop`].
    fn drop(&mut self) {
        Runtime::remove(&self.data_dir);
        self.stop.cancel();
    }
}

async fn run_until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = task => {}
    }
}

/// Aborts a request that takes too long, so that a client cannot hold a connection and a body
/// forever.
async fn limit_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(REQUEST_TIMEOUT, next.run(request))
        .await
        .unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response())
}

fn lock(data_dir: &Path) -> Result<FileLock> {
    FileLock::try_lock(&Runtime::lock_path(data_dir))?.ok_or_else(|| already_running(data_dir))
}

/// Checks that no local stack uses the data folder.
pub fn check_not_running(data_dir: &Path) -> Result<()> {
    if FileLock::is_held(&Runtime::lock_path(data_dir))? {
        return Err(already_running(data_dir));
    }
    Ok(())
}

fn already_running(data_dir: &Path) -> Error {
    let pid = Runtime::read(data_dir)
        .map(|runtime| format!(" (process {})", runtime.pid))
        .unwrap_or_default();
    Error::failed(format!(
        "another local stack is already running in `{}`{pid}",
        data_dir.display()
    ))
    .hint("stop it with Ctrl-C, or choose another folder with `--data-dir`")
}

async fn bind(host: IpAddr, port: u16, service: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!(
                    "stop the process that uses the port, set `local.{service}_port` to another \
                     port (0 selects a free one), or use `--any-port`"
                )
            }
            std::io::ErrorKind::AddrNotAvailable => {
                "set `local.host` to an address of this machine".to_string()
            }
            _ => format!("set `local.{service}_port` to another port"),
        };
        Error::failed(format!("cannot listen on {address} for {service}"))
            .with_source(error)
            .hint(hint)
    })
}

/// Runs the local stack until Ctrl-C (`pinpipe local`). A second Ctrl-C ends the stack at once.
///
/// # Errors
/// The errors of [`LocalStack::start`]; other brokers are configured; a second Ctrl-C interrupted
/// [`LocalStack::stop`].
pub async fn run(mut config: Config, options: &LocalOptions, printer: &Printer) -> Result<()> {
    if options.any_port {
        let ports = &mut config.local;
        (ports.kafka_port, ports.gateway_port, ports.kinesis_port, ports.control_port) =
            (0, 0, 0, 0);
    }
    let brokers = &config.kafka.bootstrap_servers;
    if !brokers.is_empty() {
        return Err(Error::usage(format!(
            "the local stack has its own broker, but `kafka.bootstrap_servers` is `{brokers}`"
        ))
        .hint("remove `kafka.bootstrap_servers`, which all other commands would use"));
    }
    let stack = LocalStack::start(&config).await?;
    if !stack.addresses.kafka.starts_with("127.") && !stack.addresses.kafka.starts_with("[::1]") {
        printer.warn("the servers are reachable from other machines and require no authentication");
    }
    printer.report(&LocalReport {
        pid: std::process::id(),
        data_dir: config.data_dir.clone(),
        addresses: stack.addresses.clone(),
    });
    shutdown_signal().await;
    let stop = async {
        printer.note("stopping; press Ctrl-C again to stop at once");
        stack.stop().await;
    };
    tokio::select! {
        // Listens for the second signal before the user is told about it.
        biased;
        () = shutdown_signal() => {
            Err(Error::interrupted("interrupted before the local stack had stopped")
                .hint("no acknowledged record is lost: the next start recovers"))
        }
        () = stop => Ok(()),
    }
}
