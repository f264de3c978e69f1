//! The line as the tables describe it, checked: every name resolves, every number has its range.

use std::collections::BTreeMap;

use twinlake_contracts::{Error, Result, Snapshot, suggest};

use super::distribution::Distribution;
use super::tables::{Rows, optional};

/// Where a part goes: an index into `Line::buffers`, or out of the line.
pub(super) type Destination = Option<usize>;

/// A whole line.
#[derive(Debug, Clone)]
pub(super) struct Line {
    /// At most so many parts between entry and exit (constant work in process; Spearman, Woodruff, Hopp 1990).
    pub(super) work_in_process_limit: Option<usize>,
    pub(super) products: Vec<Product>,
    pub(super) shifts: Vec<Shift>,
    pub(super) pools: Vec<Pool>,
    pub(super) buffers: Vec<Buffer>,
    pub(super) sources: Vec<Source>,
    pub(super) stations: Vec<Station>,
}

#[derive(Debug, Clone)]
pub(super) struct Product {
    pub(super) name: String,
    pub(super) share: f64,
}

/// Working time that repeats.
#[derive(Debug, Clone)]
pub(super) struct Shift {
    pub(super) name: String,
    pub(super) period: f64,
    /// Ascending, apart from each other, within `0..=period`.
    pub(super) spans: Vec<(f64, f64)>,
}

/// Operators, a repair crew or a fleet of vehicles: so many alike.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pub(super) name: String,
    pub(super) count: usize,
    pub(super) shift: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Buffer {
    pub(super) name: String,
    /// `None`: no limit.
    pub(super) capacity: Option<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    pub(super) output: usize,
    /// `None`: a part is always at hand.
    pub(super) interarrival: Option<Distribution>,
    /// Whether a part that finds no room is lost; otherwise it waits, and the next one with it.
    pub(super) loses: bool,
}

/// A machine (of one or more units alike) or a transport (its units are the vehicles that it may have at a time).
#[derive(Debug, Clone)]
pub(super) struct Station {
    pub(super) name: String,
    pub(super) transport: bool,
    pub(super) units: usize,
    pub(super) input: usize,
    /// By product.
    pub(super) output: Vec<Destination>,
    /// Who must be there while it works; a transport's fleet.
    pub(super) pool: Option<usize>,
    pub(super) shift: Option<usize>,
    /// By product: time at the machine, or of the loaded trip.
    pub(super) process: Vec<Distribution>,
    /// By product: planned time a part (ISO 22400: planned run time per item).
    pub(super) ideal: Vec<f64>,
    /// By product, then by the product before.
    pub(super) setup: Vec<Vec<Option<Distribution>>>,
    /// A transport's empty trip to the part.
    pub(super) pickup: Option<Distribution>,
    pub(super) failure: Option<FailureSpec>,
    pub(super) scrap_share: f64,
    pub(super) rework_share: f64,
    pub(super) rework_to: Option<usize>,
    pub(super) rework_at_most: u16,
    /// False for a machine that cannot work in this run: without power, taken away.
    pub(super) in_service: bool,
}

#[derive(Debug, Clone)]
pub(super) struct FailureSpec {
    /// Whether the time to failure runs in calendar time; otherwise only while the machine processes.
    pub(super) calendar: bool,
    pub(super) to_failure: Distribution,
    pub(super) to_repair: Distribution,
    pub(super) crew: Option<usize>,
}

impl Line {
    /// Reads the tables that `describe()` names.
    pub(super) fn read(city: &Snapshot) -> Result<Self> {
        let mut times = Times::read(city)?;
        let products = read_products(city)?;
        let shifts = read_shifts(city)?;
        let pools = read_pools(city, &shifts)?;
        let buffers = read_buffers(city)?;
        let names = Names { products: &products, shifts: &shifts, pools: &pools, buffers: &buffers };
        let sources = read_sources(city, &names, &mut times)?;
        let routes = Routes::read(city, &names)?;
        let mut stations = read_machines(city, &names, &routes, &mut times)?;
        stations.extend(read_transports(city, &names, &mut times)?);
        unique("machine or transport", stations.iter().map(|station| station.name.as_str()))?;
        routes.all_used(&stations)?;
        times.all_used()?;
        let work_in_process_limit = match optional(city, "line") {
            None => None,
            Some(batch) => {
                let rows = Rows::new("line", batch);
                if rows.count() != 1 {
                    return Err(Error::config(format!(
                        "the table 'line' must have one row, it has {}",
                        rows.count()
                    )));
                }
                rows.whole("work_in_process_limit", 1)?[0]
            }
        };
        let line = Self { work_in_process_limit, products, shifts, pools, buffers, sources, stations };
        line.check_flow()?;
        Ok(line)
    }

    /// What would make a run senseless or endless.
    fn check_flow(&self) -> Result<()> {
        if self.sources.is_empty() {
            return Err(Error::config("the line has no source").with_help("add a [[sources]] with an output"));
        }
        for (at, buffer) in self.buffers.iter().enumerate() {
            if !self.stations.iter().any(|station| station.input == at) {
                return Err(Error::config(format!(
                    "nothing takes parts out of the buffer '{}'",
                    buffer.name
                ))
                .with_help("name it as the input of a machine, or leave it out"));
            }
        }
        for source in &self.sources {
            let endless =
                self.work_in_process_limit.is_none() && self.buffers[source.output].capacity.is_none();
            if source.interarrival.is_none() && endless {
                return Err(Error::config(format!(
                    "the source '{}' always has a part, and the buffer '{}' takes any number",
                    source.name, self.buffers[source.output].name
                ))
                .with_help("give the source an interarrival time, the buffer a capacity or the line a work_in_process_limit"));
            }
        }
        if !self.stations.iter().any(|station| station.output.iter().any(Option::is_none)) {
            return Err(Error::config("no part ever leaves the line")
                .with_help("a machine without output hands its parts out of the line"));
        }
        Ok(())
    }
}

/// What names mean.
struct Names<'a> {
    products: &'a [Product],
    shifts: &'a [Shift],
    pools: &'a [Pool],
    buffers: &'a [Buffer],
}

impl Names<'_> {
    fn product(&self, user: &str, name: &str) -> Result<usize> {
        find(user, "product", name, self.products.iter().map(|product| product.name.as_str()))
    }
    fn buffer(&self, user: &str, name: &str) -> Result<usize> {
        find(user, "buffer", name, self.buffers.iter().map(|buffer| buffer.name.as_str()))
    }
    fn pool(&self, user: &str, name: Option<&str>) -> Result<Option<usize>> {
        let known = || self.pools.iter().map(|pool| pool.name.as_str());
        name.map(|name| find(user, "pool of operators or vehicles", name, known())).transpose()
    }
    fn shift(&self, user: &str, name: Option<&str>) -> Result<Option<usize>> {
        let known = || self.shifts.iter().map(|shift| shift.name.as_str());
        name.map(|name| find(user, "shift", name, known())).transpose()
    }
}

/// The index of a name; an unknown one is an error with the user, the nearest name or all that there are.
fn find<'a>(user: &str, what: &str, name: &str, known: impl Iterator<Item = &'a str>) -> Result<usize> {
    let known: Vec<&str> = known.collect();
    known.iter().position(|other| *other == name).ok_or_else(|| {
        let help = match suggest(name, known.iter().copied()) {
            Some(near) => format!("did you mean '{near}'?"),
            None if known.is_empty() => format!("the line has no {what}"),
            None => format!("there are: {}", known.join(", ")),
        };
        Error::config(format!("{user} names the {what} '{name}', which the line does not have"))
            .with_help(help)
    })
}

fn unique<'a>(what: &str, names: impl Iterator<Item = &'a str>) -> Result<()> {
    let mut sorted: Vec<&str> = names.collect();
    sorted.sort_unstable();
    match sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Error::config(format!("the {what} '{}' is there twice", pair[0]))
            .with_help("give each a name of its own: results and random numbers go by the name")),
        None => Ok(()),
    }
}

fn read_products(city: &Snapshot) -> Result<Vec<Product>> {
    let Some(batch) = optional(city, "products") else {
        return Ok(vec![Product { name: "part".to_owned(), share: 1.0 }]);
    };
    let rows = Rows::new("products", batch);
    let (names, shares) = (rows.names("product")?, rows.positive("share")?);
    unique("product", names.iter().map(String::as_str))?;
    let total: f64 = shares.iter().map(|share| share.unwrap_or(1.0)).sum();
    if names.is_empty() || names.len() > usize::from(u16::MAX) {
        return Err(Error::config("the table 'products' must have from 1 to 65535 rows"));
    }
    Ok(names
        .into_iter()
        .zip(shares)
        .map(|(name, share)| Product { name, share: share.unwrap_or(1.0) / total })
        .collect())
}

fn read_shifts(city: &Snapshot) -> Result<Vec<Shift>> {
    let Some(batch) = optional(city, "shifts") else { return Ok(Vec::new()) };
    let rows = Rows::new("shifts", batch);
    let names = rows.names("shift")?;
    let (period, from, to) =
        (rows.needed("period_s", &names)?, rows.needed("from_s", &names)?, rows.needed("to_s", &names)?);
    let mut shifts: Vec<Shift> = Vec::new();
    for (row, name) in names.into_iter().enumerate() {
        let span = (from[row], to[row]);
        if !(period[row] > 0.0 && span.0 < span.1 && span.1 <= period[row]) {
            return Err(Error::config(format!(
                "the shift '{name}' has a span from {} s to {} s in a period of {} s",
                span.0, span.1, period[row]
            ))
            .with_help(
                "a span begins before it ends, within its period; cut one that goes over midnight in two",
            ));
        }
        match shifts.iter_mut().find(|shift| shift.name == name) {
            None => shifts.push(Shift { name, period: period[row], spans: vec![span] }),
            Some(shift) if shift.period == period[row] => shift.spans.push(span),
            Some(_) => return Err(Error::config(format!("the shift '{name}' has two periods"))),
        }
    }
    for shift in &mut shifts {
        shift.spans.sort_by(|one, other| one.0.total_cmp(&other.0));
        if shift.spans.windows(2).any(|pair| pair[1].0 < pair[0].1) {
            return Err(Error::config(format!("spans of the shift '{}' overlap", shift.name))
                .with_help("write them one after the other"));
        }
        // Spans that touch are one: an alarm between them would be noise.
        let mut merged: Vec<(f64, f64)> = Vec::new();
        for span in shift.spans.drain(..) {
            match merged.last_mut() {
                Some(last) if last.1 == span.0 => last.1 = span.1,
                _ => merged.push(span),
            }
        }
        shift.spans = merged;
    }
    Ok(shifts)
}

fn read_pools(city: &Snapshot, shifts: &[Shift]) -> Result<Vec<Pool>> {
    let Some(batch) = optional(city, "pools") else { return Ok(Vec::new()) };
    let rows = Rows::new("pools", batch);
    let names = rows.names("pool")?;
    unique("pool of operators or vehicles", names.iter().map(String::as_str))?;
    let (counts, shift_names) = (rows.whole("count", 1)?, rows.texts("shift")?);
    let lookup = Names { products: &[], shifts, pools: &[], buffers: &[] };
    let mut pools = Vec::new();
    for (row, name) in names.into_iter().enumerate() {
        let shift = lookup.shift(&format!("the pool '{name}'"), shift_names[row].as_deref())?;
        pools.push(Pool { name, count: counts[row].unwrap_or(1), shift });
    }
    Ok(pools)
}

fn read_buffers(city: &Snapshot) -> Result<Vec<Buffer>> {
    let rows = Rows::new("buffers", city.table("buffers")?);
    let (names, capacities) = (rows.names("buffer")?, rows.whole("capacity", 0)?);
    unique("buffer", names.iter().map(String::as_str))?;
    Ok(names.into_iter().zip(capacities).map(|(name, capacity)| Buffer { name, capacity }).collect())
}

fn read_sources(city: &Snapshot, names: &Names, times: &mut Times) -> Result<Vec<Source>> {
    let rows = Rows::new("sources", city.table("sources")?);
    let (ids, outputs, full) = (rows.names("source")?, rows.names("output")?, rows.texts("when_full")?);
    unique("source", ids.iter().map(String::as_str))?;
    let mut sources = Vec::new();
    for (row, name) in ids.into_iter().enumerate() {
        let user = format!("the source '{name}'");
        let loses = match full[row].as_deref() {
            None | Some("wait") => false,
            Some("lost") => true,
            Some(other) => {
                return Err(Error::config(format!("{user} has when_full '{other}'"))
                    .with_help("write 'wait' or 'lost'"));
            }
        };
        let interarrival = times.take(&name, "interarrival", None, None);
        if let Some(time) = interarrival
            && time.mean() <= 0.0
        {
            return Err(Error::config(format!("{user} has an interarrival time of 0"))
                .with_help("leave it out: then a part is always at hand"));
        }
        sources.push(Source { output: names.buffer(&user, &outputs[row])?, interarrival, loses, name });
    }
    Ok(sources)
}

/// The table `routes`: where products go that do not go where the machine's `output` says.
struct Routes(Vec<(String, usize, usize)>);

impl Routes {
    fn read(city: &Snapshot, names: &Names) -> Result<Self> {
        let Some(batch) = optional(city, "routes") else { return Ok(Self(Vec::new())) };
        let rows = Rows::new("routes", batch);
        let (machines, products, outputs) =
            (rows.names("machine")?, rows.names("product")?, rows.names("output")?);
        let mut routes = Vec::new();
        for (row, machine) in machines.into_iter().enumerate() {
            let user = format!("a route of the machine '{machine}'");
            let (product, output) =
                (names.product(&user, &products[row])?, names.buffer(&user, &outputs[row])?);
            routes.push((machine, product, output));
        }
        Ok(Self(routes))
    }

    fn of(&self, machine: &str, product: usize) -> Option<usize> {
        self.0.iter().find(|route| route.0 == machine && route.1 == product).map(|route| route.2)
    }

    fn all_used(&self, stations: &[Station]) -> Result<()> {
        match self.0.iter().find(|route| !stations.iter().any(|station| station.name == route.0)) {
            Some(route) => Err(Error::config(format!(
                "a route names the machine '{}', which the line does not have",
                route.0
            ))),
            None => Ok(()),
        }
    }
}

fn read_machines(city: &Snapshot, names: &Names, routes: &Routes, times: &mut Times) -> Result<Vec<Station>> {
    let rows = Rows::new("machines", city.table("machines")?);
    let (ids, inputs, outputs) = (rows.names("machine")?, rows.names("input")?, rows.texts("output")?);
    let (units, operators, crews) =
        (rows.whole("units", 1)?, rows.texts("operators")?, rows.texts("repair_crew")?);
    let (clocks, shifts) = (rows.texts("failure_clock")?, rows.texts("shift")?);
    let (scrap, rework) = (rows.share("scrap_share")?, rows.share("rework_share")?);
    let (rework_to, at_most) = (rows.texts("rework_to")?, rows.whole("rework_at_most", 0)?);
    let ideal = rows.positive("ideal_cycle_s")?;
    let in_service = rows.flags("in_service")?;
    let mut stations = Vec::new();
    for (row, name) in ids.into_iter().enumerate() {
        let user = format!("the machine '{name}'");
        let output = outputs[row].as_deref().map(|output| names.buffer(&user, output)).transpose()?;
        let each = |purpose: &str, times: &mut Times, product: usize, previous: Option<&str>| {
            let product = names.products[product].name.as_str();
            times.take(&name, purpose, Some(product), previous)
        };
        let mut process = Vec::new();
        let mut setup = Vec::new();
        for (product, entry) in names.products.iter().enumerate() {
            process.push(each("process", times, product, None).ok_or_else(|| {
                Error::config(format!("{user} has no process time for the product '{}'", entry.name))
                    .with_help(
                        "process = { distribution = \"constant\", value_s = 60 } is one for all products",
                    )
            })?);
            let row: Vec<Option<Distribution>> = names
                .products
                .iter()
                .map(|before| {
                    // Going on with the same product needs no setup unless one is given for just that pair.
                    let pair = each("setup", times, product, Some(before.name.as_str()));
                    if before.name == entry.name && !times.names_pair(&name, &entry.name) {
                        None
                    } else {
                        pair
                    }
                })
                .collect();
            setup.push(row);
        }
        let failure =
            read_failure(&user, &name, clocks[row].as_deref(), crews[row].as_deref(), names, times)?;
        let (scrap_share, rework_share) = (scrap[row].unwrap_or(0.0), rework[row].unwrap_or(0.0));
        if scrap_share + rework_share > 1.0 {
            return Err(Error::config(format!(
                "{user} has scrap_share and rework_share of more than 1 together"
            )));
        }
        let rework_to = rework_to[row].as_deref().map(|to| names.buffer(&user, to)).transpose()?;
        if rework_share > 0.0 && rework_to.is_none() {
            return Err(Error::config(format!("{user} has a rework_share but no rework_to"))
                .with_help("rework = { share = 0.05, to = \"a buffer\" }"));
        }
        stations.push(Station {
            transport: false,
            units: units[row].unwrap_or(1),
            input: names.buffer(&user, &inputs[row])?,
            output: (0..names.products.len()).map(|product| routes.of(&name, product).or(output)).collect(),
            pool: names.pool(&user, operators[row].as_deref())?,
            shift: names.shift(&user, shifts[row].as_deref())?,
            ideal: process.iter().map(|time| ideal[row].unwrap_or_else(|| time.mean())).collect(),
            process,
            setup,
            pickup: None,
            failure,
            scrap_share,
            rework_share,
            rework_to,
            rework_at_most: at_most[row].map_or(u16::MAX, |most| most.min(usize::from(u16::MAX)) as u16),
            in_service: in_service[row].unwrap_or(true),
            name,
        });
    }
    Ok(stations)
}

fn read_failure(
    user: &str,
    name: &str,
    clock: Option<&str>,
    crew: Option<&str>,
    names: &Names,
    times: &mut Times,
) -> Result<Option<FailureSpec>> {
    let to_failure = times.take(name, "time_to_failure", None, None);
    let to_repair = times.take(name, "time_to_repair", None, None);
    let crew = names.pool(user, crew)?;
    match (clock, to_failure, to_repair) {
        (None, None, None) => Ok(None),
        (Some("operating" | "calendar"), Some(to_failure), Some(to_repair)) => {
            if to_failure.mean() <= 0.0 {
                return Err(Error::config(format!("{user} has a time_to_failure of 0")));
            }
            Ok(Some(FailureSpec { calendar: clock == Some("calendar"), to_failure, to_repair, crew }))
        }
        (Some("operating" | "calendar"), ..) => {
            Err(Error::config(format!("{user} fails, but lacks time_to_failure or time_to_repair")))
        }
        (clock, ..) => {
            Err(Error::config(format!("{user} has the failure clock '{}'", clock.unwrap_or_default()))
                .with_help(
                    "write 'operating' (time runs while it processes) or 'calendar' (time always runs)",
                ))
        }
    }
}

fn read_transports(city: &Snapshot, names: &Names, times: &mut Times) -> Result<Vec<Station>> {
    let Some(batch) = optional(city, "transports") else { return Ok(Vec::new()) };
    let rows = Rows::new("transports", batch);
    let (ids, inputs, outputs) = (rows.names("transport")?, rows.names("input")?, rows.names("output")?);
    let fleets = rows.names("vehicles")?;
    let mut stations = Vec::new();
    for (row, name) in ids.into_iter().enumerate() {
        let user = format!("the transport '{name}'");
        let pool = names.pool(&user, Some(&fleets[row]))?;
        let travel = times.take(&name, "travel", None, None).ok_or_else(|| {
            Error::config(format!("{user} has no time of travel"))
                .with_help("travel = { distribution = \"constant\", value_s = 30 }")
        })?;
        let output = names.buffer(&user, &outputs[row])?;
        let products = names.products.len();
        stations.push(Station {
            transport: true,
            // A unit an available vehicle: never more on the way than there are in the fleet.
            units: pool.map_or(1, |pool| names.pools[pool].count),
            input: names.buffer(&user, &inputs[row])?,
            output: vec![Some(output); products],
            pool,
            shift: None,
            ideal: vec![travel.mean(); products],
            process: vec![travel; products],
            setup: vec![vec![None; products]; products],
            pickup: times.take(&name, "pickup", None, None),
            failure: None,
            scrap_share: 0.0,
            rework_share: 0.0,
            rework_to: None,
            rework_at_most: 0,
            in_service: true,
            name,
        });
    }
    Ok(stations)
}

/// The table `times`, by element, purpose, product and product before; and which of them somebody asked for.
struct Times(BTreeMap<TimeKey, (Distribution, bool)>);

type TimeKey = (String, String, Option<String>, Option<String>);

impl Times {
    fn read(city: &Snapshot) -> Result<Self> {
        let rows = Rows::new("times", city.table("times")?);
        let (elements, purposes) = (rows.names("element")?, rows.names("purpose")?);
        let (products, before) = (rows.texts("product")?, rows.texts("previous_product")?);
        let distributions = rows.distributions(&elements, &purposes)?;
        let mut times = BTreeMap::new();
        for (row, element) in elements.into_iter().enumerate() {
            let key = (element, purposes[row].clone(), products[row].clone(), before[row].clone());
            if let Some(_twice) = times.insert(key.clone(), (distributions[row], false)) {
                return Err(Error::config(format!("'{}' has the time {} twice", key.0, key.1)));
            }
        }
        Ok(Self(times))
    }

    /// The time that fits best: for just that product and the one before, then with either left open, then for all.
    fn take(
        &mut self,
        element: &str,
        purpose: &str,
        product: Option<&str>,
        before: Option<&str>,
    ) -> Option<Distribution> {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        for (product, before) in [(product, before), (product, None), (None, before), (None, None)] {
            let key = (element.to_owned(), purpose.to_owned(), owned(product), owned(before));
            if let Some((distribution, used)) = self.0.get_mut(&key) {
                *used = true;
                return Some(*distribution);
            }
        }
        None
    }

    /// Whether there is a setup from a product to itself.
    fn names_pair(&self, element: &str, product: &str) -> bool {
        let product = Some(product.to_owned());
        self.0.contains_key(&(element.to_owned(), "setup".to_owned(), product.clone(), product))
    }

    /// A time that nothing asked for has a wrong name in it.
    fn all_used(&self) -> Result<()> {
        match self.0.iter().find(|(_, (_, used))| !used) {
            None => Ok(()),
            Some(((element, purpose, product, before), _)) => {
                let whom = [product, before]
                    .into_iter()
                    .flatten()
                    .fold(String::new(), |text, name| format!("{text} of the product '{name}'"));
                Err(Error::config(format!(
                    "the {purpose} time of '{element}'{whom} belongs to nothing in the line"
                ))
                .with_help("check the names of the element and the product"))
            }
        }
    }
}
