package main

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/seed9bb5c928/nst/torch"
)

// shownCard is a card as nvidia-smi shows it. What it does not say is 0: drivers of old know
// of no compute capability.
type shownCard struct {
	name, driver string
	capability   float64
}

// shownCards asks nvidia-smi, which the Windows subsystem for Linux has in a folder of its
// own. There are none where it is missing or fails.
func shownCards(ctx context.Context) []shownCard {
	for _, smi := range []string{"nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"} {
		for _, fields := range []string{"name,compute_cap,driver_version", "name,driver_version"} {
			out, err := exec.CommandContext(ctx, smi, "--query-gpu="+fields, "--format=csv,noheader").Output()
			if cards := readCards(string(out)); err == nil && len(cards) > 0 {
				return cards
			}
		}
	}
	return nil
}

// readCards reads a line a card, with commas between.
func readCards(text string) (cards []shownCard) {
	for line := range strings.Lines(text) {
		fields := strings.Split(strings.TrimSpace(line), ", ")
		if len(fields) < 2 {
			continue
		}
		c := shownCard{name: fields[0], driver: fields[len(fields)-1]}
		if len(fields) > 2 {
			c.capability, _ = strconv.ParseFloat(fields[1], 64)
		}
		cards = append(cards, c)
	}
	return cards
}

// unfit says why the pinned wheels would be fetched in vain, by the newest kind of card that
// there is: "" where nothing is known against them, as in containers without nvidia-smi.
func unfit(ctx context.Context) string {
	cards := shownCards(ctx)
	if len(cards) == 0 {
		return ""
	}
	card := slices.MaxFunc(cards, func(a, b shownCard) int { return cmp.Compare(a.capability, b.capability) })
	capability, driver := leastCard()
	major, _, _ := strings.Cut(card.driver, ".")
	of, err := strconv.ParseFloat(major, 64)
	switch {
	case card.capability > 0 && card.capability < capability:
		return fmt.Sprintf("%s has compute capability %.1f, and libtorch %s has code from %.1f on: nothing is "+
			"fetched; a Python torch %[3]s made for that card, which nst finds, will do", card.name, card.capability,
			torch.Version(), capability)
	case err == nil && of < driver:
		return fmt.Sprintf("the driver of %s is %s, and libtorch %s wants %.0f or later: nothing is fetched; a newer "+
			"driver will do, or a Python torch %[3]s made for it, which nst finds", card.name, card.driver,
			torch.Version(), driver)
	}
	return ""
}
