package jobs_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// A queue in one process: its server, a worker, a job and its result. In a cluster the
// worker is another process, and jobs.Connect takes the place of the server.
func Example() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	dir, err := os.MkdirTemp("", "nst-example-")
	check(err)
	defer os.RemoveAll(dir)
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: dir})
	check(err)
	defer server.Close()
	nc, err := server.Connect()
	check(err)
	defer nc.Close()
	queue, err := jobs.Open(ctx, nc, jobs.Config{Dir: dir, MaxBytes: server.MaxBytes()})
	check(err)
	defer queue.Close()

	engine, err := nst.Open(ctx, "../../build/share/nst/vgg19.pt", nst.OpenOptions{Device: "cpu"})
	check(err)
	defer engine.Close()
	worked := make(chan error)
	go func() { worked <- queue.Work(ctx, engine, "") }()

	request := jobs.Request{Options: nst.Options{Size: new(32), Iterations: new(2)}}
	request.Content, err = os.ReadFile("../testdata/reference/content-128x96.png")
	check(err)
	style, err := os.ReadFile("../testdata/reference/style-120x96.png")
	check(err)
	request.Styles = [][]byte{style}
	job, _, err := queue.Submit(ctx, request)
	check(err)
	changes, stop := queue.Changes(job.ID)
	defer stop()
	for !job.State.Finished() {
		<-changes
		job, err = queue.Get(ctx, job.ID)
		check(err)
	}
	picture, err := queue.Picture(ctx, job.ID, "result")
	check(err)
	fmt.Println(job.State, job.Width, job.Height, len(picture) > 0)
	cancel()
	check(<-worked)
	// Output: done 32 24 true
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
