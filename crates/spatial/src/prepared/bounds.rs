//! Boxes parallel to the axes, in the plane or in the plane and time.

/// The smallest box around something; a side may be infinite. `D` is 2 in the plane, 3 with time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Bounds<const D: usize> {
    pub min: [f64; D],
    pub max: [f64; D],
}

impl<const D: usize> Bounds<D> {
    /// The box around nothing: what it is extended with, it becomes.
    pub(crate) const NOTHING: Self = Self { min: [f64::INFINITY; D], max: [f64::NEG_INFINITY; D] };

    pub(crate) fn is_nothing(&self) -> bool {
        self.min[0] > self.max[0]
    }

    /// Whether the boxes share a point; touching counts.
    #[inline]
    pub(crate) fn meets(&self, other: &Self) -> bool {
        let mut meets = true;
        for axis in 0..D {
            meets &= self.min[axis] <= other.max[axis];
            meets &= other.min[axis] <= self.max[axis];
        }
        meets
    }

    /// Grows the box to hold another.
    #[inline]
    pub(crate) fn extend(&mut self, other: &Self) {
        for axis in 0..D {
            self.min[axis] = self.min[axis].min(other.min[axis]);
            self.max[axis] = self.max[axis].max(other.max[axis]);
        }
    }

    /// Twice the middle along an axis.
    pub(crate) fn middle(&self, axis: usize) -> f64 {
        self.min[axis] + self.max[axis]
    }
}

impl Bounds<2> {
    pub(crate) fn point(x: f64, y: f64) -> Self {
        Self { min: [x, y], max: [x, y] }
    }

    #[inline]
    pub(crate) fn add(&mut self, x: f64, y: f64) {
        self.min[0] = self.min[0].min(x);
        self.min[1] = self.min[1].min(y);
        self.max[0] = self.max[0].max(x);
        self.max[1] = self.max[1].max(y);
    }

    /// The box with a margin of `dx` and `dy` all round, and a little more: what is computed as no farther than the
    /// margin never falls outside for a rounding error.
    pub(crate) fn with_margin(&self, dx: f64, dy: f64) -> Self {
        let slack = |margin: f64, low: f64, high: f64| {
            margin + (margin.abs() + low.abs().max(high.abs())) * (16.0 * f64::EPSILON)
        };
        let dx = slack(dx, self.min[0], self.max[0]);
        let dy = slack(dy, self.min[1], self.max[1]);
        Self { min: [self.min[0] - dx, self.min[1] - dy], max: [self.max[0] + dx, self.max[1] + dy] }
    }

    /// The box in the plane and a span of time.
    pub(crate) fn during(&self, from: f64, to: f64) -> Bounds<3> {
        Bounds { min: [self.min[0], self.min[1], from], max: [self.max[0], self.max[1], to] }
    }

    /// The square of the distance between two boxes; 0 when they meet.
    #[inline]
    pub(crate) fn distance_squared(&self, other: &Self) -> f64 {
        let gap =
            |axis: usize| (self.min[axis] - other.max[axis]).max(other.min[axis] - self.max[axis]).max(0.0);
        let (x, y) = (gap(0), gap(1));
        x * x + y * y
    }
}
