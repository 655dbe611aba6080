//go:build tools

// Package tools names the program that the module builds, so that go.sum holds it.
package tools

import (
	_ "helm.sh/helm/v3/cmd/helm"
)
