package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func newReadyCommand() *cobra.Command {
	o := &submitOptions{}
	c := &cobra.Command{
		Use:   "ready",
		Short: "Say whether a service would make jobs now",
		Long: `nst ready asks a service's /readyz, as a container's health check does: exit status 0 if
jobs would be made, 1 with the reason if not.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			service, err := o.service()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(c.Context(), 5*time.Second)
			defer cancel()
			answer, err := service.Calls.Readiness(ctx)
			if err != nil {
				return fmt.Errorf("the service does not answer: %w", err)
			}
			defer answer.Body.Close()
			var said struct {
				Status  any    `json:"status"`
				Workers int    `json:"workers"`
				Detail  string `json:"detail"`
			}
			if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&said); err != nil {
				return errors.New("what answers is no service of nst")
			}
			if answer.StatusCode != http.StatusOK || said.Status != "ready" {
				if said.Detail == "" {
					return errors.New("what answers is no service of nst")
				}
				return fmt.Errorf("the service is not ready: %s", said.Detail)
			}
			fmt.Fprintf(c.OutOrStdout(), "ready, %d workers\n", said.Workers)
			return nil
		},
	}
	o.registerService(c.Flags())
	return c
}
