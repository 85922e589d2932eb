// Command queue has a job made by a queue in a folder, and writes its result.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

func main() {
	model, content, style, dir := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: dir})
	check(err)
	defer server.Close()
	nc, err := server.Connect() // or jobs.Connect(ctx, "nats://…"), of a cluster
	check(err)
	defer nc.Close()
	queue, err := jobs.Open(ctx, nc, jobs.Config{Dir: dir, MaxBytes: server.MaxBytes()})
	check(err)
	defer queue.Close()

	request := jobs.Request{Options: nst.Options{Size: new(64), Iterations: new(3)}, Key: "order 1"}
	request.Content, err = os.ReadFile(content)
	check(err)
	painting, err := os.ReadFile(style)
	check(err)
	request.Styles = [][]byte{painting}
	job, _, err := queue.Submit(ctx, request)
	check(err)
	changes, stop := queue.Changes(job.ID)
	defer stop()

	engine, err := nst.Open(ctx, model, nst.OpenOptions{})
	check(err)
	defer engine.Close()
	worked := make(chan error)
	go func() { worked <- queue.Work(ctx, engine, "") }() // or in another process
	for !job.State.Finished() {
		<-changes
		job, err = queue.Get(ctx, job.ID)
		check(err)
	}
	picture, err := queue.Picture(ctx, job.ID, "result")
	check(err)
	fmt.Println(job.State, len(picture) > 0)
	cancel()
	check(<-worked)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
