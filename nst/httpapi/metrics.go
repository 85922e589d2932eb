package httpapi

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/seed9bb5c928/nst/nst/jobs"
)

// metrics are the service's, the queue's and the workers', for Prometheus.
type metrics struct {
	http.Handler
	requests         *prometheus.HistogramVec
	finished         *prometheus.CounterVec
	submitted, clips prometheus.Counter
	retries, deaths  prometheus.Counter
	stop             func() // observing
	wait, took       prometheus.Histogram
}

func newMetrics(a *API) *metrics {
	registry := prometheus.NewRegistry()
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	histogram := func(name, help string, buckets ...float64) prometheus.Histogram {
		return prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	}
	gauge := func(name, help string, value func() int) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help},
			func() float64 { return float64(value()) })
	}
	m := &metrics{
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "nst_http_request_seconds", Help: "Time to answer, by call and status (streams of events are not " +
				"counted).",
			Buckets: []float64{.001, .005, .02, .05, .1, .5, 2, 10, 60},
		}, []string{"call", "status"}),
		finished: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "nst_jobs_finished_total",
			Help: "Jobs that have ended since this process began, by how."}, []string{"state"}),
		submitted: counter("nst_jobs_submitted_total", "Jobs that were submitted since this process began."),
		clips:     counter("nst_clips_submitted_total", "Those of them whose content is a clip."),
		retries:   counter("nst_job_retries_total", "Times that a job was begun again since this process began."),
		deaths:    counter("nst_worker_deaths_total", "Times that a worker vanished with its job."),
		wait: histogram("nst_job_wait_seconds", "From when a job was submitted to when a worker began it.",
			.1, .5, 1, 5, 15, 60, 300, 900, 3600, 14400),
		took: histogram("nst_job_seconds", "From when a worker began a job to its result.",
			1, 5, 15, 30, 60, 120, 300, 900, 3600, 14400),
	}
	for _, s := range []jobs.State{jobs.Done, jobs.Failed, jobs.Cancelled} {
		m.finished.WithLabelValues(string(s))
	}
	registry.MustRegister(m.requests, m.finished, m.submitted, m.clips, m.retries, m.deaths, m.wait, m.took,
		gauge("nst_uploads", "Requests whose pictures are arriving.", a.senders.count),
		gauge("nst_downloads", "Pictures that are being taken.", a.takers.count),
		gauge("nst_streams", "Clients that follow a job.", a.streams.count),
		queueMetrics{a.queue}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	m.stop = a.queue.Observe(m.observe)
	return m
}

// observe counts what has happened to a job.
func (m *metrics) observe(before, after jobs.Job) {
	if before.ID == "" {
		m.submitted.Inc()
		if after.Clip != nil {
			m.clips.Inc()
		}
	}
	if before.Started == nil && after.Started != nil {
		m.wait.Observe(after.Started.Sub(after.Created).Seconds())
	}
	if again := after.Attempts - max(1, before.Attempts); again > 0 {
		m.retries.Add(float64(again))
	}
	deaths := after.Deaths - before.Deaths
	if deaths < 0 { // counted anew, from a newer checkpoint
		deaths = after.Deaths
	}
	m.deaths.Add(float64(deaths))
	if before.State.Finished() || !after.State.Finished() {
		return
	}
	m.finished.WithLabelValues(string(after.State)).Inc()
	if after.State == jobs.Done && after.Started != nil && after.Finished != nil {
		m.took.Observe(after.Finished.Sub(*after.Started).Seconds())
	}
}

func (m *metrics) timed(call string, next http.HandlerFunc) http.HandlerFunc {
	if strings.HasSuffix(call, "/events") {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		s := &seen{ResponseWriter: w, status: 200}
		next(s, r)
		m.requests.WithLabelValues(call, strconv.Itoa(s.status)).Observe(time.Since(began).Seconds())
	}
}

// queueMetrics asks the queue when Prometheus asks.
type queueMetrics struct{ queue *jobs.Queue }

var (
	jobsMetric   = prometheus.NewDesc("nst_jobs", "Jobs that are kept, by state.", []string{"state"}, nil)
	depthMetric  = prometheus.NewDesc("nst_queue_depth", "Jobs that wait for a worker.", nil, nil)
	workerMetric = prometheus.NewDesc("nst_workers", "Workers that are there.", nil, nil)
	paceMetric   = prometheus.NewDesc("nst_worker_seconds_per_iteration",
		"Of the job that a worker runs, on average; 0 without one.", []string{"worker", "device"}, nil)
	countMetric = prometheus.NewDesc("nst_worker_iterations_total", "Iterations since the worker began.",
		[]string{"worker", "device"}, nil)
	memoryMetric = prometheus.NewDesc("nst_worker_device_memory_bytes",
		"Device memory in use by a worker (on the CPU, the process's).", []string{"worker", "device"}, nil)
	busyMetric = prometheus.NewDesc("nst_worker_busy_seconds_total",
		"Time that the worker has had jobs; its rate is the share of the time that it is busy.",
		[]string{"worker", "device"}, nil)
	storedMetric = prometheus.NewDesc("nst_store_bytes", "What is stored of jobs, in all.", nil, nil)
	mostMetric   = prometheus.NewDesc("nst_queue_limit", "Jobs that may wait or run.", nil, nil)
	limitMetric  = prometheus.NewDesc("nst_store_limit_bytes", "How much may be stored; absent where there is no "+
		"limit.", nil, nil)
	freeMetric = prometheus.NewDesc("nst_worker_device_free_bytes", "Device memory that is free.",
		[]string{"worker", "device"}, nil)
)

// Describe names the metrics.
func (m queueMetrics) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{jobsMetric, depthMetric, workerMetric, paceMetric, countMetric, memoryMetric,
		freeMetric, busyMetric, storedMetric, limitMetric, mostMetric} {
		all <- d
	}
}

// Collect reads them.
func (m queueMetrics) Collect(all chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		all <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	states := map[jobs.State]int{jobs.Queued: 0, jobs.Running: 0, jobs.Done: 0, jobs.Failed: 0, jobs.Cancelled: 0}
	for _, j := range m.queue.List() {
		states[j.State]++
	}
	for s, n := range states {
		gauge(jobsMetric, float64(n), string(s))
	}
	gauge(depthMetric, float64(states[jobs.Queued]))
	gauge(mostMetric, float64(m.queue.Limits().MaxJobs))
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if stored, limit, err := m.queue.Stored(ctx); err == nil {
		gauge(storedMetric, float64(stored))
		if limit > 0 {
			gauge(limitMetric, float64(limit))
		}
	}
	workers, err := m.queue.Workers(ctx)
	if err != nil {
		return
	}
	gauge(workerMetric, float64(len(workers)))
	for _, w := range workers {
		gauge(paceMetric, w.SecondsPerIteration, w.Name, w.Device)
		all <- prometheus.MustNewConstMetric(countMetric, prometheus.CounterValue, float64(w.Iterations), w.Name,
			w.Device)
		all <- prometheus.MustNewConstMetric(busyMetric, prometheus.CounterValue, w.Busy, w.Name, w.Device)
		gauge(memoryMetric, float64(w.Memory), w.Name, w.Device)
		gauge(freeMetric, float64(w.Free), w.Name, w.Device)
	}
}
