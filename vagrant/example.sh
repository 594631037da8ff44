#!/bin/sh
# The lab's example: `hello` says which replica answered, `front` asks it by name and is reached on every machine.
# Run on a manager. What is already there is left as it is.
#
#   example.sh NODES REPLICAS PORT    waits until as many nodes are ready, then deploys
set -eu
nodes=$1 replicas=$2 port=$3
tries=300

ready() { shoal node ls | awk '$3 == "ready"' | wc -l; }
until [ "$(ready)" -ge "$nodes" ]; do
    tries=$((tries - 1))
    [ $tries -gt 0 ] || { echo "only $(ready) of $nodes nodes are ready:" >&2; shoal node ls >&2; exit 1; }
    sleep 1
done

has() { shoal "$1" inspect "$2" > /dev/null 2>&1; }

has network lab || shoal network create --driver overlay lab > /dev/null

# shellcheck disable=SC2016 # the containers' shells expand these
has service hello || shoal service create --detach --name hello --replicas "$replicas" --network lab \
    --env 'SLOT={{.Task.Slot}}' --env 'NODE={{.Node.Hostname}}' busybox \
    sh -c 'echo "hello.$SLOT on $NODE" > /www/index.html; exec httpd -f -p 80 -h /www'

# shellcheck disable=SC2016
has service front || shoal service create --detach --name front --mode global --network lab \
    --publish "mode=host,target=80,published=$port" --env 'NODE={{.Node.Hostname}}' busybox \
    sh -c 'mkdir -p /www/cgi-bin
cat > /www/cgi-bin/index.cgi <<"END"
#!/bin/sh
echo "Content-Type: text/plain"
echo
echo "front on $NODE asked http://hello/ and was answered by $(timeout 5 wget -q -O - http://hello/ || echo nobody)"
END
chmod +x /www/cgi-bin/index.cgi
exec httpd -f -p 80 -h /www'
