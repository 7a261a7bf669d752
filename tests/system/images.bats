#!/usr/bin/env bats
# Images between nodes: layers move as plain tars, and the layout that an image came in is given back where it went.
load common

# Two members in one file: gzip -dc reads it, and no single run of an encoder writes it.
two_members() {
    local file=$BATS_TEST_TMPDIR/two
    echo "cat >$file; head -c 5000 $file | gzip -nc; tail -c +5001 $file | gzip -nc"
}

# same_layout EXPORTED.tar IMPORTED.tar: index, manifest, config and blobs byte for byte
same_layout() {
    rm -rf "$LAB_DIR/one" "$LAB_DIR/two"
    mkdir "$LAB_DIR/one" "$LAB_DIR/two"
    tar -C "$LAB_DIR/one" -xf "$1"
    tar -C "$LAB_DIR/two" -xf "$2"
    diff -r "$LAB_DIR/one" "$LAB_DIR/two"
}

packings() { lab_cmig "$1" image show "$2" --json | jq -r '[.layers[] | "\(.codec) \(.level)"] | join(", ")'; }
oci_manifest() { lab_cmig "$1" image show "$2" --json | jq -r .oci_manifest; }

@test "the layout that an image came in goes with its container and is given back there, digest for digest" {
    need_containers
    mesh none a b
    OCI_FILTERS=("zstd -qc -4" "$(two_members)")
    counter_image 300K
    guid=$(new_guid)
    run_counter a counter "$guid"
    [ "$(packings a counter:1)" = "zstd 4, opaque 0" ]
    lab_cmig a migrate counter --to b
    is_running b counter
    [ "$(packings b counter:1)" = "zstd 4, opaque 0" ]
    [ "$(oci_manifest b counter:1)" = "$(oci_manifest a counter:1)" ]
    # What cannot be made of its tar comes behind the container, so that the source is not needed any more.
    blob=$(lab_cmig b image show counter:1 --json | jq -r '.layers[1].blob')
    has_blob() { lab_cmig b ls --full | grep -q "$blob"; }
    lab_wait 20 has_blob
    lab_kill a
    lab_cmig b image export --original counter:1 -o "$LAB_DIR/back.tar"
    same_layout "$LAB_DIR/back.tar" "$LAB_DIR/image.tar"
    lab_start a
    # What was given back comes in again as the same image.
    lab_cmig a image import "$LAB_DIR/back.tar"
    [ "$(packings a counter:1)" = "zstd 4, opaque 0" ]
    # Without --original there are plain tars, the same on both nodes.
    lab_cmig a image export counter:1 -o "$LAB_DIR/plain-a.tar"
    lab_cmig b image export counter:1 -o "$LAB_DIR/plain-b.tar"
    cmp "$LAB_DIR/plain-a.tar" "$LAB_DIR/plain-b.tar"
}

@test "an opaque blob that nobody can give is an error with a text, and the image still runs" {
    need_containers
    mesh none a b
    OCI_FILTERS=(cat "$(two_members)")
    counter_image 300K
    guid=$(new_guid)
    run_counter a counter "$guid"
    lab_cmig a migrate counter --to b
    blob=$(lab_cmig b image show counter:1 --json | jq -r '.layers[1].blob')
    has_blob() { lab_cmig b ls --full | grep -q "$blob"; }
    lab_wait 20 has_blob
    run lab_cmig b rm "$blob"
    [ "$status" -ne 0 ]
    lab_cmig b rm -f "$blob"
    # Fetched again by the export that wants it.
    lab_cmig b image export --original counter:1 -o "$LAB_DIR/back.tar"
    same_layout "$LAB_DIR/back.tar" "$LAB_DIR/image.tar"
    rm "$LAB_DIR/back.tar"
    lab_cmig b rm -f "$blob"
    lab_kill a
    run lab_cmig b image export --original counter:1 -o "$LAB_DIR/back.tar"
    [ "$status" -ne 0 ]
    [[ $output == *"a blob of the layout"* ]]
    [ ! -e "$LAB_DIR/back.tar" ]
    is_running b counter
    lab_cmig b image export counter:1 -o "$LAB_DIR/plain.tar"
}

@test "a new version of a compressed image costs its difference" {
    need_root
    mesh none a b
    busybox_tree "$LAB_DIR/base"
    cp -r /usr/share/perl /usr/lib/python3* "$LAB_DIR/base/" 2>/dev/null || true
    head -c 4M /dev/urandom >"$LAB_DIR/base/etc/weights"
    OCI_FILTERS=("zstd -qc -3")
    oci_layout "$LAB_DIR/one.tar" app:1 '["/bin/sh"]' "$LAB_DIR/base"
    echo changed >>"$LAB_DIR/base/etc/passwd"
    echo changed | dd of="$LAB_DIR/base/etc/weights" bs=1 seek=2000000 conv=notrunc status=none
    oci_layout "$LAB_DIR/two.tar" app:2 '["/bin/sh"]' "$LAB_DIR/base"
    lab_cmig a image import "$LAB_DIR/one.tar"
    lab_cmig b image import "$LAB_DIR/one.tar"
    lab_cmig a image import "$LAB_DIR/two.tar"
    layer=$(lab_cmig a image show app:2 --json | jq -r '.layers[0].digest')
    size=$(lab_cmig a image show app:2 --json | jq -r '.layers[0].size_bytes')
    lab_cmig b get "$layer" --json -o "$LAB_DIR/layer" >"$LAB_DIR/report"
    came=$(tail -1 "$LAB_DIR/report" | jq '[.bytes_by_peer[]] | add')
    echo "the second version: $came of $size bytes"
    [ "$came" -lt $((size / 10)) ]
    [ "$(sha256sum "$LAB_DIR/layer" | cut -d' ' -f1)" = "${layer#sha256:}" ]
}
