# Images out of what the machine has: OCI layouts written with tar, sha256sum and jq. Sourced beside mesh.bash.

# oci_layout OUT.tar NAME CMD_JSON LAYER_DIR... : one layer for each directory, the lowest first. OCI_FILTERS, if set, has
# a command for each layer that packs its tar, from standard input to standard output.
oci_layout() {
    local out=$1 name=$2 cmd=$3 work layer digest size config
    shift 3
    work=$(mktemp -d "${TMPDIR:-/tmp}/cmig-image-XXXXXX")
    mkdir -p "$work/layout/blobs/sha256"
    local diff_ids=() layers=() filters=("${OCI_FILTERS[@]}") filter
    for layer in "$@"; do
        tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$layer" -cf "$work/layer" .
        diff_ids+=("sha256:$(sha256sum "$work/layer" | cut -d' ' -f1)")
        filter=${filters[0]:-cat}
        filters=("${filters[@]:1}")
        bash -c "$filter" <"$work/layer" >"$work/packed"
        rm "$work/layer"
        digest=$(sha256sum "$work/packed" | cut -d' ' -f1)
        size=$(stat -c %s "$work/packed")
        mv "$work/packed" "$work/layout/blobs/sha256/$digest"
        layers+=("{\"mediaType\":\"application/vnd.oci.image.layer.v1.tar\",\"digest\":\"sha256:$digest\",\"size\":$size}")
    done
    oci_blob() { # content on stdin; prints {"digest":...,"size":...}
        cat >"$work/blob"
        digest=$(sha256sum "$work/blob" | cut -d' ' -f1)
        size=$(stat -c %s "$work/blob")
        mv "$work/blob" "$work/layout/blobs/sha256/$digest"
        printf '{"digest":"sha256:%s","size":%s}' "$digest" "$size"
    }
    config=$(jq -nc --argjson cmd "$cmd" --args \
        '{architecture: "amd64", os: "linux", config: {Cmd: $cmd, Env: ["PATH=/bin:/usr/bin:/sbin:/usr/sbin"]},
          rootfs: {type: "layers", diff_ids: $ARGS.positional}}' "${diff_ids[@]}" | oci_blob)
    local manifest
    manifest=$(printf '%s\n' "${layers[@]}" | jq -sc --argjson config "$config" \
        '{schemaVersion: 2, mediaType: "application/vnd.oci.image.manifest.v1+json",
          config: ($config + {mediaType: "application/vnd.oci.image.config.v1+json"}), layers: .}' | oci_blob)
    jq -nc --argjson manifest "$manifest" --arg name "$name" \
        '{schemaVersion: 2, manifests: [$manifest + {mediaType: "application/vnd.oci.image.manifest.v1+json",
          annotations: {"org.opencontainers.image.ref.name": $name}}]}' >"$work/layout/index.json"
    printf '{"imageLayoutVersion":"1.0.0"}' >"$work/layout/oci-layout"
    tar -C "$work/layout" -cf "$out" .
    rm -rf "$work"
}

# A root file system with busybox and the usual directories.
busybox_tree() {
    local dir=$1
    mkdir -p "$dir"/{bin,etc,proc,sys,dev,tmp,data,run,root}
    cp "$(command -v busybox)" "$dir/bin/busybox"
    local applet
    for applet in sh sleep cat echo date ls nc ps kill mkdir dd true false; do ln -sf busybox "$dir/bin/$applet"; done
    printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$dir/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$dir/etc/group"
    chmod 1777 "$dir/tmp"
}

# Copy a program of the host with the libraries that it needs into a tree.
host_program() {
    local dir=$1 program=$2 library
    mkdir -p "$dir/usr/bin"
    cp -L "$(command -v "$program")" "$dir/usr/bin/"
    while read -r library; do
        mkdir -p "$dir$(dirname "$library")"
        [ -e "$dir$library" ] || cp -L "$library" "$dir$library"
    done < <(ldd "$(command -v "$program")" | grep -o '/[^ ]*')
}
