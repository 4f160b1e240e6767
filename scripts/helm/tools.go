//go:build tools

// Package helm names the program that scripts/kube builds, so that go.mod keeps its modules.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
