package main

import (
	"cmp"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/seed9bb5c928/nst/torch"
)

// shownCard is a card as nvidia-smi shows it. What it does not say is 0: drivers of old know
// of no compute capability.
type shownCard struct {
	name, driver string
	capability   float64
}

// queries are what nvidia-smi is asked for, and its answer: the card's name, which may have
// commas, its compute capability and its driver.
var queries = []struct {
	fields string
	answer *regexp.Regexp
}{
	{"name,compute_cap,driver_version", regexp.MustCompile(`(?m)^(.+), *([^,\n]*), *([0-9][^,\n]*)$`)},
	{"name,driver_version", regexp.MustCompile(`(?m)^(.+)(), *([0-9][^,\n]*)$`)},
}

// shownCards asks nvidia-smi, which the Windows subsystem for Linux has in a folder of its
// own. There are none where it is missing, fails, or waits for a card that is lost. Keep in
// step with scripts/setup.
func shownCards(ctx context.Context) (cards []shownCard) {
	for _, smi := range []string{"nvidia-smi", "/usr/lib/wsl/lib/nvidia-smi"} {
		for _, q := range queries {
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			asked := exec.CommandContext(limited, smi, "--query-gpu="+q.fields, "--format=csv,noheader")
			asked.WaitDelay = time.Second // for what it has started
			out, err := asked.Output()
			late := limited.Err() != nil
			cancel()
			if late {
				break
			}
			if err != nil {
				continue
			}
			for _, found := range q.answer.FindAllStringSubmatch(string(out), -1) {
				c := shownCard{name: found[1], driver: found[3]}
				c.capability, _ = strconv.ParseFloat(found[2], 64)
				cards = append(cards, c)
			}
			if len(cards) > 0 {
				return cards
			}
		}
	}
	return nil
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
