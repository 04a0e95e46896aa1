//! The local stack: broker, Kinesis endpoint, gateway and sink in one process, each
//! speaking the protocol of the service it stands for.

pub mod broker;
pub mod control;
pub mod kinesis;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::base::config::runtime::{Addresses, Runtime};
use crate::base::config::schema::Config;
use crate::base::error::{Error, ErrorContext, Result, io_error};
use crate::base::fs::FileLock;
use crate::base::output::table::Table;
use crate::base::output::{Printer, Report};
use crate::stages::gateway::Gateway;
use crate::stages::gateway::routes::Routes;
use crate::stages::sink::connectors::Connectors;

/// How long requests under way may take when the stack stops.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// Settings of the local stack beside its configuration.
#[derive(Debug, Clone, Default)]
pub struct LocalOptions {
    /// Take any free ports instead of the configured ones
    pub any_port: bool,
}

/// The address table.
#[derive(Debug, Serialize)]
pub struct LocalReport {
    pub pid: u32,
    pub data_dir: PathBuf,
    pub addresses: Addresses,
}

impl Report for LocalReport {
    fn text(&self) -> String {
        let mut table = Table::new(["service", "address", "speaks"]);
        table.row(["kafka", &self.addresses.kafka, "Kafka protocol"]);
        table.row([
            "gateway",
            &format!("http://{}", self.addresses.gateway),
            "Kafka REST v2, /streams",
        ]);
        table.row([
            "kinesis",
            &format!("http://{}", self.addresses.kinesis),
            "Kinesis API",
        ]);
        table.row([
            "control",
            &format!("http://{}", self.addresses.control),
            "Kafka Connect REST (sink), /api (routes)",
        ]);
        format!(
            "{}\ndata in {}; Ctrl-C stops",
            table.render(),
            self.data_dir.display()
        )
    }
}

/// A running stack.
pub struct LocalStack {
    pub addresses: Addresses,
    data_dir: PathBuf,
    connectors: Arc<Connectors>,
    servers: JoinSet<()>,
    stop: CancellationToken,
    /// Held as long as the stack runs: one stack for one data folder.
    _lock: FileLock,
}

impl LocalStack {
    /// Starts everything on the configured ports; 0 takes any free one.
    ///
    /// # Errors
    /// The data folder is in use or cannot be written, a port is taken.
    pub async fn start(config: &Config) -> Result<Self> {
        let data_dir = &config.data_dir;
        std::fs::create_dir_all(data_dir).map_err(|error| io_error("create", data_dir, error))?;
        let lock = lock(data_dir)?;
        let host: IpAddr = match config.local.host.as_str() {
            "localhost" => IpAddr::from([127, 0, 0, 1]),
            host => host
                .parse()
                .context(|| format!("`local.host` must be an IP address, not `{host}`"))?,
        };
        if host.is_unspecified() {
            return Err(Error::usage(format!(
                "`local.host` cannot be `{host}`: Kafka clients are told this address to connect to"
            ))
            .hint("name one address of this machine, or 127.0.0.1"));
        }
        let kafka = bind(host, config.local.kafka_port, "kafka").await?;
        let gateway = bind(host, config.local.gateway_port, "gateway").await?;
        let kinesis_listener = bind(host, config.local.kinesis_port, "kinesis").await?;
        let control = bind(host, config.local.control_port, "control").await?;
        let address = |listener: &TcpListener| {
            listener
                .local_addr()
                .context(|| "cannot tell the address of a server")
        };
        let advertised = address(&kafka)?;
        let addresses = Addresses {
            kafka: advertised.to_string(),
            gateway: address(&gateway)?.to_string(),
            kinesis: address(&kinesis_listener)?.to_string(),
            control: address(&control)?.to_string(),
        };
        let mut servers = JoinSet::new();
        let stop = CancellationToken::new();

        let broker = broker::Broker::open(&data_dir.join("kafka"), advertised)?;
        servers.spawn(until(stop.clone(), broker.serve(kafka)));
        let retention = Duration::from_secs(u64::from(config.kinesis.retention_hours) * 3600);
        let store = kinesis::store::Store::open(
            &data_dir.join("kinesis.db"),
            retention,
            &config.aws.region,
        )
        .await?;
        servers.spawn(serve(
            kinesis_listener,
            kinesis::server::router(store),
            stop.clone(),
        ));

        let own = config.clone().with_addresses(&addresses);
        let routes = Arc::new(Routes::open(data_dir)?);
        servers.spawn(serve(
            gateway,
            Gateway::new(&own, routes.clone()).await?.router(),
            stop.clone(),
        ));
        let connectors = Connectors::open(&own).await?;
        servers.spawn(serve(
            control,
            control::router(connectors.clone(), routes),
            stop.clone(),
        ));

        Runtime {
            pid: std::process::id(),
            addresses: addresses.clone(),
        }
        .write(data_dir)?;
        Ok(Self {
            addresses,
            data_dir: data_dir.clone(),
            connectors,
            servers,
            stop,
            _lock: lock,
        })
    }

    /// Stops taking requests, finishes those under way, closes everything.
    pub async fn stop(mut self) {
        Runtime::remove(&self.data_dir);
        self.connectors.stop_all().await;
        self.stop.cancel();
        let finished = async { while self.servers.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, finished).await.is_err() {
            tracing::debug!("connections still open when the local stack stopped");
        }
    }
}

impl Drop for LocalStack {
    /// Also where the stack is not stopped in good order, nobody is sent to addresses that are gone.
    fn drop(&mut self) {
        Runtime::remove(&self.data_dir);
        self.stop.cancel();
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

async fn serve(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
    use axum::serve::ListenerExt;
    // Small answers must not wait for the next packet.
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    if let Err(error) = axum::serve(listener, router)
        .with_graceful_shutdown(stop.cancelled_owned())
        .await
    {
        tracing::error!(%error, "a local server stopped");
    }
}

fn lock(data_dir: &Path) -> Result<FileLock> {
    FileLock::try_lock(&Runtime::lock_path(data_dir))?.ok_or_else(|| {
        let pid = Runtime::read(data_dir)
            .map(|runtime| format!(" (process {})", runtime.pid))
            .unwrap_or_default();
        Error::failed(format!(
            "another local stack already runs in `{}`{pid}",
            data_dir.display()
        ))
        .hint("stop it with Ctrl-C, or choose another folder with `--data-dir`")
    })
}

async fn bind(host: IpAddr, port: u16, service: &str) -> Result<TcpListener> {
    let address = SocketAddr::new(host, port);
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                format!("stop what listens there, set `local.{service}_port` to another port (0 takes any), or use `--any-port`")
            }
            std::io::ErrorKind::AddrNotAvailable => "`local.host` must be an address of this machine".to_string(),
            _ => format!("set `local.{service}_port` to another port"),
        };
        Error::failed(format!("cannot listen on {address} for {service}")).with_source(error).hint(hint)
    })
}

/// `pinpipe local`: runs until Ctrl-C.
pub async fn run(mut config: Config, options: &LocalOptions, printer: &Printer) -> Result<()> {
    if options.any_port {
        let ports = &mut config.local;
        (
            ports.kafka_port,
            ports.gateway_port,
            ports.kinesis_port,
            ports.control_port,
        ) = (0, 0, 0, 0);
    }
    let stack = LocalStack::start(&config).await?;
    if !stack.addresses.kafka.starts_with("127.") && !stack.addresses.kafka.starts_with("[::1]") {
        printer.warn("the servers listen beyond this machine, and ask nobody for a password");
    }
    printer.report(&LocalReport {
        pid: std::process::id(),
        data_dir: config.data_dir.clone(),
        addresses: stack.addresses.clone(),
    });
    crate::base::shutdown::shutdown_signal().await;
    printer.note("stopping");
    stack.stop().await;
    Ok(())
}
