//! `hostel demo`: the shortest way from a clone to a result. Builds the showcase plugins, serves
//! them on the embedded defaults, and gives each one real work over gRPC.

use super::{build, exit::Failure, serve::Signals};
use crate::{
    Config,
    client::DistributedClient,
    node::DistributedNode,
    proto::distributed::{Message, Task, TaskStatus},
};
use anyhow::{Context, ensure};
use clap::Args;
use std::{
    collections::HashMap,
    io::Cursor,
    path::{Path, PathBuf},
};
use tokio::net::TcpListener;

/// The showcase plugins, as cargo knows them.
const SHOWCASE: [&str; 4] = ["echo", "rates", "text", "thumbnail"];

/// Build the showcase plugins, run a node and let it do some work
///
/// Needs the source tree. Builds into plugins/, keeps its data in target/demo, and goes on serving
/// until Ctrl-C unless told to exit.
#[derive(Debug, Args)]
pub struct Demo {
    /// Stop after the results
    #[arg(long)]
    exit: bool,
}

impl Demo {
    pub async fn run(self) -> Result<(), Failure> {
        let source = source_tree()?;
        let plugins = source.join("plugins");
        eprintln!("building the showcase plugins into {}", plugins.display());
        build::build(&source, &SHOWCASE, &plugins)?;

        let mut signals = Signals::new()?;
        let data = source.join("target/demo");
        let mut config = embedded_defaults(&plugins, &data)?;
        if self.exit || !is_free(config.node.listen).await {
            config.node.listen.set_port(0);
        }
        let mut node = DistributedNode::from_config(&config).await?;
        node.start().await?;
        let worked = work(&node, &data).await;
        if self.exit || worked.is_err() {
            node.stop().await?;
            return Ok(worked?);
        }
        say!("{}", how_to_go_on(&node));
        signals.next().await;
        Ok(node.stop().await?)
    }
}

/// Asks the component `rates` for everything.
const QUERY: &str = r#"{"query":{}}"#;

/// What a node does without a file, but for where it keeps things.
fn embedded_defaults(plugins: &Path, data: &Path) -> Result<Config, Failure> {
    let variable = |name: &str, path: &Path| (name.into(), path.to_string_lossy().into_owned());
    let places = [
        variable("HOSTEL__PLUGINS__DIR", plugins),
        variable("HOSTEL__NODE__DATA_DIR", data),
    ];
    Config::parse("", places.into_iter()).map_err(Failure::usage)
}

/// Real work for each plugin, over gRPC like everybody else's.
async fn work(node: &DistributedNode, out: &Path) -> anyhow::Result<()> {
    let mut client = DistributedClient::connect(&node.address().to_string()).await?;
    say!("\nA node serves on {}. Some work for it:\n", node.address());

    let echoed = run(&mut client, "echo", "Hello, sandbox!".into(), &[]).await?;
    report(&echoed, &String::from_utf8_lossy(&echoed.result));

    let readme = include_str!("../../README.md");
    let counted = run(&mut client, "word-count", readme.into(), &[]).await?;
    report(&counted, &summary(&counted.result)?);

    let size = [("width", "96"), ("height", "96")];
    let shrunk = run(&mut client, "thumbnail", picture()?, &size).await?;
    let file = out.join("thumbnail.png");
    std::fs::write(&file, &shrunk.result)
        .with_context(|| format!("cannot write {}", file.display()))?;
    let shown = image::load_from_memory(&shrunk.result).context("the thumbnail is no picture")?;
    let (width, height) = (shown.width(), shown.height());
    report(
        &shrunk,
        &format!("{width} x {height} pixels in {}", file.display()),
    );

    // Tasks record events; the component counts them, and answers what it is asked.
    for (name, count) in [("tea", 3), ("coffee", 2), ("tea", 1)] {
        let event = serde_json::json!({ "name": name, "count": count });
        run(&mut client, "record-event", event.to_string().into(), &[]).await?;
    }
    let question = Message {
        to_node: "rates".into(),
        payload: QUERY.into(),
        reply_timeout_ms: 10_000,
        ..Message::default()
    };
    let answered = client.send_message(question).await?;
    let reply = answered.reply.filter(|_| answered.success);
    let reply = reply.with_context(|| format!("the component rates: {}", answered.message))?;
    let table = String::from_utf8_lossy(&reply.payload);
    say!("  the component rates, asked for its table\n    {table}\n");
    Ok(())
}

async fn run(
    client: &mut DistributedClient,
    task_type: &str,
    payload: Vec<u8>,
    metadata: &[(&str, &str)],
) -> anyhow::Result<TaskStatus> {
    let metadata = metadata.iter().map(|&(k, v)| (k.into(), v.into()));
    let task = Task {
        task_type: task_type.into(),
        payload: payload.into(),
        metadata: HashMap::from_iter(metadata),
        ..Task::default()
    };
    let status = client.submit_and_wait(task).await?;
    ensure!(
        status.status == "completed",
        "the {task_type} task {}: {}",
        status.status,
        status.error
    );
    Ok(status)
}

fn report(status: &TaskStatus, result: &str) {
    let took = status.finished_at_ms - status.started_at_ms;
    let TaskStatus {
        task_type,
        plugin,
        plugin_version,
        ..
    } = status;
    say!("  {task_type} ({plugin} {plugin_version}, {took} ms)\n    {result}\n");
}

/// What the README's words come to.
fn summary(result: &[u8]) -> anyhow::Result<String> {
    let counts: serde_json::Value = serde_json::from_slice(result)?;
    let top = counts["top"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    let top: Vec<_> = top
        .iter()
        .filter_map(|word| Some(format!("{} ({})", word["word"].as_str()?, word["count"])))
        .take(5)
        .collect();
    Ok(format!(
        "README.md: {} words in {} lines; most often {}",
        counts["words"],
        counts["lines"],
        top.join(", ")
    ))
}

/// A picture worth shrinking: rings of colour, 1600 x 1200, as PNG.
fn picture() -> anyhow::Result<Vec<u8>> {
    let picture = image::RgbImage::from_fn(1600, 1200, |x, y| {
        let (dx, dy) = (f64::from(x) - 800.0, f64::from(y) - 600.0);
        let ring = (dx.hypot(dy) / 40.0).sin().mul_add(100.0, 155.0);
        image::Rgb([ring as u8, (x * 255 / 1600) as u8, (y * 255 / 1200) as u8])
    });
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png)?;
    Ok(png.into_inner())
}

/// The clone that this binary was built from, or the directory in which it is called.
fn source_tree() -> anyhow::Result<PathBuf> {
    let built_in = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let here = std::env::current_dir().unwrap_or_default();
    let found = [here, built_in]
        .into_iter()
        .find(|dir| dir.join("plugins/echo/Cargo.toml").is_file());
    found.context(
        "the demo builds the showcase plugins and needs Hostel's source tree: run it there",
    )
}

async fn is_free(address: std::net::SocketAddr) -> bool {
    TcpListener::bind(address).await.is_ok()
}

fn how_to_go_on(node: &DistributedNode) -> String {
    let address = node.address();
    format!(
        "The node keeps serving; Ctrl-C stops it. In another terminal, here:

  export HOSTEL_SERVER=http://{address}
  target/release/hostel submit word-count --file README.md --wait
  target/release/hostel send rates --payload '{QUERY}' --wait
  target/release/hostel plugins list
  target/release/hostel tasks list

Drop another .wasm into plugins/ and it serves within the second."
    )
}
