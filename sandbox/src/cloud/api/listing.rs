//! Lists: filters, order and pages, by the API documentation's "Pagination", "Sorting" and "Label Selector".

use std::cmp::Ordering;
use std::fmt::Write as _;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::call::{Answer, Call, parameter};
use super::error::ApiError;
use crate::cloud::model::labels::Selector;
use crate::cloud::model::resources::{Firewall, FloatingIp, Labels, Network, PrimaryIp, Server};
use crate::cloud::project::settings::OverLongPage;

const DEFAULT_PER_PAGE: usize = 25;
const MAX_PER_PAGE: usize = 50;

/// The name of a field to sort by, and its comparison.
pub(super) type Key<T> = (&'static str, Compare<T>);

type Compare<T> = fn(&T, &T) -> Ordering;

/// A resource that the API lists.
pub(super) trait Listed {
    fn id(&self) -> u64;
    fn name(&self) -> &str;
    fn labels(&self) -> Option<&Labels>;
    fn created(&self) -> SystemTime;
}

macro_rules! listed {
    ($($kind:ty => $labels:expr;)*) => {$(
        impl Listed for $kind {
            fn id(&self) -> u64 {
                self.id.0
            }

            fn name(&self) -> &str {
                &self.name
            }

            fn labels(&self) -> Option<&Labels> {
                let labels: fn(&Self) -> Option<&Labels> = $labels;
                labels(self)
            }

            fn created(&self) -> SystemTime {
                self.created
            }
        }
    )*};
}

listed! {
    Network => |network| Some(&network.labels);
    Server => |server| Some(&server.labels);
    FloatingIp => |floating_ip| Some(&floating_ip.labels);
    Firewall => |firewall| Some(&firewall.labels);
    PrimaryIp => |_| None;
}

/// One page of a list of resources, filtered by `name` and `label_selector`, ordered by `sort`.
pub(super) fn list<T: Listed>(
    call: &Call<'_>,
    key: &str,
    items: impl IntoIterator<Item = T>,
    render: impl Fn(&T) -> Value,
) -> Result<Answer, ApiError> {
    let name: Option<String> = parameter(call.query, "name")?;
    let selector = selector(call.query)?;
    let wanted = |item: &T| {
        let selected = |selector: &Selector| {
            item.labels().map_or_else(|| selector.matches(&Labels::new()), |labels| selector.matches(labels))
        };
        name.as_ref().is_none_or(|name| name == item.name()) && selector.as_ref().is_none_or(selected)
    };
    let mut items: Vec<T> = items.into_iter().filter(wanted).collect();
    sort(
        &mut items,
        call.query,
        &[
            ("id", |a, b| a.id().cmp(&b.id())),
            ("name", |a, b| a.name().cmp(b.name())),
            ("created", |a, b| a.created().cmp(&b.created())),
        ],
    )?;
    page(call, key, &items, render)
}

fn selector(query: &[(String, String)]) -> Result<Option<Selector>, ApiError> {
    let text: Option<String> = parameter(query, "label_selector")?;
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => match Selector::parse(&text) {
            Some(selector) => Ok(Some(selector)),
            None => Err(ApiError::invalid_field("label_selector", "is not a valid label selector")),
        },
    }
}

/// A filter that may be given several times. Without a value it accepts everything.
pub(super) fn filter<'a>(
    query: &'a [(String, String)],
    name: &str,
    known: &[&str],
) -> Result<impl Fn(&str) -> bool + use<'a>, ApiError> {
    let values: Vec<&str> = query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect();
    if values.iter().any(|value| !known.is_empty() && !known.contains(value)) {
        return Err(ApiError::invalid_field(name, "is not a valid value"));
    }
    Ok(move |value: &str| values.is_empty() || values.contains(&value))
}

/// Sorts by all `sort` parameters of the query, the first one first; without any, by the first of the keys.
pub(super) fn sort<T>(items: &mut [T], query: &[(String, String)], keys: &[Key<T>]) -> Result<(), ApiError> {
    let wanted = query.iter().filter(|(key, _)| key == "sort").map(|(_, value)| value.as_str());
    let order = wanted.map(|wanted| order(wanted, keys)).collect::<Option<Vec<_>>>();
    let order = order.ok_or_else(|| ApiError::invalid_field("sort", "is not a valid value"))?;
    if let Some((_, first)) = keys.first() {
        items.sort_by(first);
    }
    for (compare, descending) in order.into_iter().rev() {
        items.sort_by(|a, b| if descending { compare(b, a) } else { compare(a, b) });
    }
    Ok(())
}

/// The comparison of one `sort` parameter, and whether it is descending.
fn order<T>(wanted: &str, keys: &[Key<T>]) -> Option<(Compare<T>, bool)> {
    let (name, direction) = wanted.split_once(':').unwrap_or((wanted, "asc"));
    let descending = match direction {
        "asc" => false,
        "desc" => true,
        _ => return None,
    };
    keys.iter().find(|(key, _)| *key == name).map(|&(_, compare)| (compare, descending))
}

/// One page of a list, with `meta` and the `Link` header. A page after the last is empty, and its previous page is the
/// one before it (observed on the real API).
pub(super) fn page<T>(
    call: &Call<'_>,
    key: &str,
    items: &[T],
    render: impl Fn(&T) -> Value,
) -> Result<Answer, ApiError> {
    let pages = Pages::from_query(call, items.len())?;
    let shown: Vec<Value> = pages.slice(items).iter().map(render).collect();
    let body = json!({ key: shown, "meta": { "pagination": pages.json() } });
    Ok(Answer::ok(body).with_link(pages.link(call)))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pages {
    page: usize,
    per_page: usize,
    total: usize,
}

impl Pages {
    fn from_query(call: &Call<'_>, total: usize) -> Result<Self, ApiError> {
        let page = parameter(call.query, "page")?.unwrap_or(1);
        let per_page = parameter(call.query, "per_page")?.unwrap_or(DEFAULT_PER_PAGE);
        if page < 1 {
            return Err(ApiError::invalid_field("page", "must be at least 1"));
        }
        let too_long = per_page > MAX_PER_PAGE && call.project.settings.over_long_page == OverLongPage::Refuse;
        if per_page < 1 || too_long {
            return Err(ApiError::invalid_field("per_page", "must be between 1 and 50"));
        }
        Ok(Self { page, per_page: per_page.min(MAX_PER_PAGE), total })
    }

    fn last(self) -> usize {
        self.total.div_ceil(self.per_page).max(1)
    }

    fn next(self) -> Option<usize> {
        (self.page < self.last()).then(|| self.page + 1)
    }

    fn previous(self) -> Option<usize> {
        (self.page > 1).then(|| self.page - 1)
    }

    fn slice<T>(self, items: &[T]) -> &[T] {
        let start = (self.page - 1).saturating_mul(self.per_page).min(items.len());
        &items[start..(start + self.per_page).min(items.len())]
    }

    fn json(self) -> Value {
        json!({
            "page": self.page,
            "per_page": self.per_page,
            "previous_page": self.previous(),
            "next_page": self.next(),
            "last_page": self.last(),
            "total_entries": self.total,
        })
    }

    fn link(self, call: &Call<'_>) -> String {
        let mut link = String::new();
        let pages = [("prev", self.previous()), ("next", self.next()), ("last", Some(self.last()))];
        for (rel, page) in pages {
            let Some(page) = page else { continue };
            let separator = if link.is_empty() { "" } else { ", " };
            write!(link, "{separator}<{}?page={page}&per_page={}>; rel=\"{rel}\"", call.url, self.per_page)
                .expect("writing to a string does not fail");
        }
        link
    }
}
