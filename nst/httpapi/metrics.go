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
	requests *prometheus.HistogramVec
}

func newMetrics(q *jobs.Queue) *metrics {
	registry := prometheus.NewRegistry()
	m := &metrics{requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "nst_http_request_seconds", Help: "Time to answer, by call and status (streams of events are not " +
			"counted).",
		Buckets: []float64{.001, .005, .02, .05, .1, .5, 2, 10, 60},
	}, []string{"call", "status"})}
	registry.MustRegister(m.requests, queueMetrics{q}, collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.Handler = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	return m
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
	freeMetric = prometheus.NewDesc("nst_worker_device_free_bytes", "Device memory that is free.",
		[]string{"worker", "device"}, nil)
)

// Describe names the metrics.
func (m queueMetrics) Describe(all chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{jobsMetric, depthMetric, workerMetric, paceMetric, countMetric, memoryMetric,
		freeMetric} {
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
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	workers, err := m.queue.Workers(ctx)
	if err != nil {
		return
	}
	gauge(workerMetric, float64(len(workers)))
	for _, w := range workers {
		gauge(paceMetric, w.SecondsPerIteration, w.Name, w.Device)
		all <- prometheus.MustNewConstMetric(countMetric, prometheus.CounterValue, float64(w.Iterations), w.Name,
			w.Device)
		gauge(memoryMetric, float64(w.Memory), w.Name, w.Device)
		gauge(freeMetric, float64(w.Free), w.Name, w.Device)
	}
}
