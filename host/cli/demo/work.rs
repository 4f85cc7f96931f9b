//! What a demo has its plugins do, one task of each type and a question to the component, and how
//! the results read. Where it runs is `mod.rs`'s and `cluster.rs`'s.

use crate::{
    client::DistributedClient,
    proto::distributed::{Message, Task, TaskStatus},
};
use anyhow::{Context, ensure};
use std::{io::Cursor, path::Path};

/// Asks the component `rates` for everything.
pub const QUERY: &str = r#"{"query":{}}"#;

/// A task, and how to read its result.
pub struct Work {
    pub task: Task,
    read: fn(&[u8], &Path) -> anyhow::Result<String>,
}

/// Something for each task type of the showcase, and several events, so that there is a table.
pub fn all() -> anyhow::Result<Vec<Work>> {
    let mut all = vec![
        Work::new("echo", "Hello, sandbox!", |result, _| {
            Ok(String::from_utf8_lossy(result).into_owned())
        }),
        Work::new("word-count", include_str!("../../../README.md"), summary),
        Work::new("thumbnail", picture()?, thumbnail),
    ];
    for (key, value) in [("width", "96"), ("height", "96")] {
        all[2].task.metadata.insert(key.into(), value.into());
    }
    for (name, count) in [("tea", 3), ("coffee", 2), ("tea", 1)] {
        let event = serde_json::json!({ "name": name, "count": count }).to_string();
        all.push(Work::new("record-event", event, |_, _| {
            Ok("recorded".to_owned())
        }));
    }
    Ok(all)
}

impl Work {
    fn new(
        task_type: &str,
        payload: impl Into<Vec<u8>>,
        read: fn(&[u8], &Path) -> anyhow::Result<String>,
    ) -> Self {
        let task = Task {
            task_type: task_type.into(),
            payload: payload.into().into(),
            ..Task::default()
        };
        Self { task, read }
    }

    /// Submitted and waited for; an error unless it completes.
    pub async fn run(&self, client: &mut DistributedClient) -> anyhow::Result<TaskStatus> {
        let status = client.submit_and_wait(self.task.clone()).await?;
        ensure!(
            status.status == "completed",
            "the {} task {}: {}",
            status.task_type,
            status.status,
            status.error
        );
        Ok(status)
    }

    /// The result for people; what is a file goes into `out`.
    pub fn shown(&self, result: &[u8], out: &Path) -> anyhow::Result<String> {
        (self.read)(result, out)
    }
}

/// What ran a task, and how long that took.
pub fn of_plugin(status: &TaskStatus) -> String {
    let took = status.finished_at_ms - status.started_at_ms;
    let (plugin, version) = (&status.plugin, &status.plugin_version);
    format!("  {} ({plugin} {version}, {took} ms)\n", status.task_type)
}

/// The table of the component `rates`, from wherever it is.
pub async fn ask_rates(client: &mut DistributedClient) -> anyhow::Result<String> {
    let question = Message {
        to_node: "rates".into(),
        payload: QUERY.into(),
        reply_timeout_ms: 10_000,
        ..Message::default()
    };
    let answered = client.send_message(question).await?;
    let reply = answered.reply.filter(|_| answered.success);
    let reply = reply.with_context(|| format!("the component rates: {}", answered.message))?;
    Ok(String::from_utf8_lossy(&reply.payload).into_owned())
}

/// A picture is kept as a file, once it has been found to be one.
fn thumbnail(result: &[u8], out: &Path) -> anyhow::Result<String> {
    let file = out.join("thumbnail.png");
    std::fs::write(&file, result).with_context(|| format!("cannot write {}", file.display()))?;
    let shown = image::load_from_memory(result).context("the thumbnail is no picture")?;
    let (width, height) = (shown.width(), shown.height());
    Ok(format!("{width} x {height} pixels in {}", file.display()))
}

/// What the README's words come to.
fn summary(result: &[u8], _: &Path) -> anyhow::Result<String> {
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
