//! The tasks of the demo, one for each task type, and a query for the component, with how their results
//! are printed.

use crate::{
    client::DistributedClient,
    proto::distributed::{Message, Task, TaskStatus},
};
use anyhow::{Context, ensure};
use std::{io::Cursor, path::Path};

/// Requests all counts of the component `rates`.
pub const QUERY: &str = r#"{"query":{}}"#;

/// A task, and how to print its result.
pub struct DemoTask {
    pub task: Task,
    print: fn(&[u8], &Path) -> anyhow::Result<String>,
}

/// Returns a task for each task type of the showcase plugins, and several events for the table.
pub fn all() -> anyhow::Result<Vec<DemoTask>> {
    let mut all = vec![
        DemoTask::new("echo", "Hello, sandbox!", |result, _| {
            Ok(String::from_utf8_lossy(result).into_owned())
        }),
        DemoTask::new("word-count", include_str!("../../../README.md"), summary),
        DemoTask::new("thumbnail", picture()?, thumbnail),
    ];
    for (key, value) in [("width", "96"), ("height", "96")] {
        all[2].task.metadata.insert(key.into(), value.into());
    }
    for (name, count) in [("tea", 3), ("coffee", 2), ("tea", 1)] {
        let event = serde_json::json!({ "name": name, "count": count }).to_string();
        all.push(DemoTask::new("record-event", event, |_, _| {
            Ok("recorded".to_owned())
        }));
    }
    Ok(all)
}

impl DemoTask {
    fn new(
        task_type: &str,
        payload: impl Into<Vec<u8>>,
        print: fn(&[u8], &Path) -> anyhow::Result<String>,
    ) -> Self {
        let task = Task {
            task_type: task_type.into(),
            payload: payload.into().into(),
            ..Task::default()
        };
        Self { task, print }
    }

    /// Submits the task and waits for its end. Returns an error unless it completes.
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

    /// Formats the result. A file is written to `out`.
    pub fn shown(&self, result: &[u8], out: &Path) -> anyhow::Result<String> {
        (self.print)(result, out)
    }
}

/// Returns the task type with the plugin that ran the task and how long that took.
pub fn heading(status: &TaskStatus) -> String {
    let took = status.finished_at_ms - status.started_at_ms;
    let (plugin, version) = (&status.plugin, &status.plugin_version);
    format!("  {} ({plugin} {version}, {took} ms)\n", status.task_type)
}

/// Queries the component `rates` for its table.
pub async fn query_rates(client: &mut DistributedClient) -> anyhow::Result<String> {
    let query = Message {
        to_node: "rates".into(),
        payload: QUERY.into(),
        reply_timeout_ms: 10_000,
        ..Message::default()
    };
    let response = client.send_message(query).await?;
    let reply = response.reply.filter(|_| response.success);
    let reply = reply.with_context(|| format!("the component rates: {}", response.message))?;
    Ok(String::from_utf8_lossy(&reply.payload).into_owned())
}

/// Writes a thumbnail to a file and checks that it is a picture.
fn thumbnail(result: &[u8], out: &Path) -> anyhow::Result<String> {
    let file = out.join("thumbnail.png");
    std::fs::write(&file, result).with_context(|| format!("cannot write {}", file.display()))?;
    let shown = image::load_from_memory(result).context("the thumbnail is not a picture")?;
    let (width, height) = (shown.width(), shown.height());
    Ok(format!("{width} x {height} pixels in {}", file.display()))
}

/// Formats the word counts of the README.
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

/// Returns a picture of coloured rings, 1600 x 1200, as PNG.
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
