//! A benchmark case: a value that is measured for bastiond and for the alternatives.

/// The name of our subject.
pub(crate) const OURS: &str = "bastiond";

/// A case with its measured values.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    /// The name, such as `gateway/pps-1`.
    pub(crate) name: &'static str,
    /// A short description.
    pub(crate) title: &'static str,
    /// The unit of the values.
    pub(crate) unit: &'static str,
    /// Whether higher or lower values are better.
    pub(crate) better: Better,
    /// The subjects in the order of measurement; one is [`OURS`].
    pub(crate) subjects: Vec<Subject>,
    /// The promise about our own median. A [`RatioPromise`] is one about a ratio.
    pub(crate) promise: Option<Promise>,
}

/// Whether higher or lower values are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// A measured program with one value for each round; NaN where it failed.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) values: Vec<f64>,
    pub(crate) ratio_promise: Option<RatioPromise>,
}

/// A promise about our median.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Promise {
    Below(f64),
    AtMost(f64),
}

/// A promise about the ratio of our value to that of another subject.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum RatioPromise {
    AtLeast(f64),
    AtMost(f64),
}

/// The difference between two measurements of the same rules on a shared machine.
pub(crate) const TOLERANCE: f64 = 0.03;

impl Case {
    /// A case that measures bastiond only.
    pub(crate) fn of_bastiond(
        name: &'static str,
        title: &'static str,
        unit: &'static str,
        promise: Option<Promise>,
        values: Vec<f64>,
    ) -> Self {
        let subjects = vec![Subject { name: OURS.to_owned(), values, ratio_promise: None }];
        Self { name, title, unit, better: Better::Lower, subjects, promise }
    }

    pub(crate) fn ours(&self) -> &Subject {
        self.subject(OURS)
    }

    pub(crate) fn subject(&self, name: &str) -> &Subject {
        self.subjects.iter().find(|subject| subject.name == name).expect("every case has its subjects")
    }

    pub(crate) fn others(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.iter().filter(|subject| subject.name != OURS)
    }

    /// The median ratio of our value to the other subject's. Both were measured within seconds in each round, so this
    /// varies less than the ratio of the medians. NaN if one of them failed in every round.
    pub(crate) fn ratio_to(&self, other: &Subject) -> f64 {
        median(self.ours().values.iter().zip(&other.values).map(|(ours, theirs)| ours / theirs))
    }

    /// Whether all promises are kept; `None` without a promise.
    pub(crate) fn is_kept(&self) -> Option<bool> {
        let own = self.promise.map(|promise| promise.is_kept(self.ours().median()));
        let ratios = self.others().filter_map(|other| Some(self.is_ratio_kept(other.ratio_promise?, other)));
        own.into_iter().chain(ratios).reduce(|one, other| one && other)
    }

    fn is_ratio_kept(&self, ratio_promise: RatioPromise, other: &Subject) -> bool {
        // A subject that failed in every round cannot be better.
        let other_failed = !other.has_values() && self.ours().has_values();
        other_failed || ratio_promise.is_kept(self.ratio_to(other))
    }
}

impl Promise {
    fn is_kept(self, median: f64) -> bool {
        match self {
            Self::Below(limit) => median < limit,
            Self::AtMost(limit) => median <= limit,
        }
    }
}

impl RatioPromise {
    fn is_kept(self, ratio: f64) -> bool {
        match self {
            Self::AtLeast(limit) => ratio >= limit,
            Self::AtMost(limit) => ratio <= limit,
        }
    }
}

impl Subject {
    pub(crate) fn new(name: impl Into<String>, ratio_promise: Option<RatioPromise>) -> Self {
        Self { name: name.into(), values: Vec::new(), ratio_promise }
    }

    pub(crate) fn median(&self) -> f64 {
        median(self.values.iter().copied())
    }

    pub(crate) fn least(&self) -> f64 {
        self.values.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub(crate) fn greatest(&self) -> f64 {
        self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// The number of rounds in which it did not fail.
    pub(crate) fn runs(&self) -> usize {
        self.values.iter().filter(|value| !value.is_nan()).count()
    }

    pub(crate) fn has_values(&self) -> bool {
        self.runs() > 0
    }
}

/// The median of the values that are not NaN; NaN if there are none.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.filter(|value| !value.is_nan()).collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => values[count / 2],
        count => f64::midpoint(values[count / 2 - 1], values[count / 2]),
    }
}
