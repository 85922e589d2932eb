package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func newReadyCommand() *cobra.Command {
	var server string
	c := &cobra.Command{
		Use:   "ready",
		Short: "Say whether a service would make jobs now",
		Long: `nst ready asks a service's /readyz, as a container's health check does: exit status 0 if
jobs would be made, 1 with the reason if not.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			request, err := http.NewRequestWithContext(c.Context(), http.MethodGet,
				strings.TrimSuffix(server, "/")+"/readyz", nil)
			if err != nil {
				return usage("--server is %q; a URL such as http://127.0.0.1:8080 will do", server)
			}
			client := http.Client{Timeout: 5 * time.Second}
			answer, err := client.Do(request)
			if err != nil {
				return fmt.Errorf("the service does not answer: %w", err)
			}
			defer answer.Body.Close()
			var said struct {
				Workers int    `json:"workers"`
				Detail  string `json:"detail"`
			}
			if err := json.NewDecoder(answer.Body).Decode(&said); err != nil {
				return fmt.Errorf("%s is no service of nst: %w", server, err)
			}
			if answer.StatusCode != http.StatusOK {
				return fmt.Errorf("the service is not ready: %s", said.Detail)
			}
			fmt.Fprintf(c.OutOrStdout(), "ready, %d workers\n", said.Workers)
			return nil
		},
	}
	c.Flags().StringVar(&server, "server", "http://127.0.0.1:8080", "the service's URL")
	return c
}
