//! The results as tables.

use crate::case::{Case, OURS, Promise, RatioPromise, Subject, median as median_of};

/// Prints a table for each group of cases with the same subjects.
pub(crate) fn print(cases: &[Case]) {
    for group in cases.chunk_by(|a, b| names(a).eq(names(b))) {
        let is_ours_only = group[0].others().next().is_none();
        let rows = if is_ours_only { own_rows(group) } else { compared_rows(group) };
        println!("{}", aligned(&rows));
    }
}

fn names(case: &Case) -> impl Iterator<Item = &str> {
    case.subjects.iter().map(|subject| &subject.name[..])
}

fn compared_rows(group: &[Case]) -> Vec<Vec<String>> {
    let mut head = vec!["case".to_owned(), "unit".to_owned()];
    head.extend(names(&group[0]).map(str::to_owned));
    head.extend(group[0].others().map(|other| format!("{OURS} / {}", without_version(&other.name))));
    head.push("promise".to_owned());
    let row = |case: &Case| {
        let mut row = vec![format!("{}: {}", case.name, case.title), case.unit.to_owned()];
        row.extend(case.subjects.iter().map(with_spread));
        row.extend(case.others().map(|other| ratio(case, other)));
        row.push(promise(case));
        row
    };
    std::iter::once(head).chain(group.iter().map(row)).collect()
}

fn own_rows(group: &[Case]) -> Vec<Vec<String>> {
    let head = ["case", "unit", "median", "least", "most", "runs", "promise"].map(str::to_owned).to_vec();
    let row = |case: &Case| {
        let ours = case.ours();
        let name = format!("{}: {}", case.name, case.title);
        let [median, least, most] = [ours.median(), ours.least(), ours.greatest()].map(number);
        vec![name, case.unit.to_owned(), median, least, most, ours.values.len().to_string(), promise(case)]
    };
    std::iter::once(head).chain(group.iter().map(row)).collect()
}

fn without_version(name: &str) -> &str {
    name.split(' ').next().unwrap_or(name)
}

/// The median, and the median deviation from it in percent.
fn with_spread(subject: &Subject) -> String {
    if !subject.has_values() {
        return "failed".to_owned();
    }
    let median = subject.median();
    let deviation = median_of(subject.values.iter().map(|value| (value - median).abs()));
    format!("{} ±{:.0}%", number(median), 100.0 * deviation / median)
}

/// The ratio, and the promise about it.
fn ratio(case: &Case, other: &Subject) -> String {
    let ratio = case.ratio_to(other);
    let ratio = if ratio.is_nan() { "-".to_owned() } else { format!("{ratio:.2}") };
    match other.ratio_promise {
        None => ratio,
        Some(RatioPromise::AtLeast(limit)) => format!("{ratio} >= {limit}"),
        Some(RatioPromise::AtMost(limit)) => format!("{ratio} <= {limit}"),
    }
}

fn promise(case: &Case) -> String {
    let Some(kept) = case.is_kept() else { return String::new() };
    let kept = if kept { "kept" } else { "NOT KEPT" };
    match case.promise {
        None => kept.to_owned(),
        Some(Promise::Below(limit)) => format!("< {}: {kept}", number(limit)),
        Some(Promise::AtMost(limit)) => format!("<= {}: {kept}", number(limit)),
    }
}

/// A number with groups of three digits, and with decimals only if it is small.
fn number(value: f64) -> String {
    let digits = if value.abs() < 10.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    } else if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.1}");
    } else {
        format!("{value:.0}")
    };
    let (sign, digits) = digits.strip_prefix('-').map_or(("", &digits[..]), |digits| ("-", digits));
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).unwrap_or("")).collect();
    format!("{sign}{}", groups.join(" "))
}

/// The rows as a Markdown table. The first two columns and the last one are text.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    let is_text = |column: usize| column < 2 || column + 1 == widths.len();
    let cell = |(column, text): (usize, &String)| {
        let width = widths[column];
        if is_text(column) { format!("{text:<width$}") } else { format!("{text:>width$}") }
    };
    let line =
        |row: &Vec<String>| format!("| {} |\n", row.iter().enumerate().map(cell).collect::<Vec<_>>().join(" | "));
    let rule: Vec<String> = (0..widths.len())
        .map(|column| if is_text(column) { "-".repeat(widths[column]) } else { "-".repeat(widths[column] - 1) + ":" })
        .collect();
    let mut lines = rows.iter().map(line);
    let head = lines.next().unwrap_or_default();
    format!("{head}| {} |\n{}", rule.join(" | "), lines.collect::<String>())
}
