import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.acl.AccessControlEntry;
import org.apache.kafka.common.acl.AclBinding;
import org.apache.kafka.common.acl.AclBindingFilter;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.acl.AclPermissionType;
import org.apache.kafka.common.resource.PatternType;
import org.apache.kafka.common.resource.Resource;
import org.apache.kafka.common.resource.ResourcePattern;
import org.apache.kafka.common.resource.ResourceType;

/**
 * Grants rights. Arguments: broker, user, and OPERATION:TOPIC, or OPERATION alone for the cluster, as often as wanted; with a
 * minus in front it takes a right away.
 */
class Grant {
    public static void main(String[] args) throws Exception {
        List<AclBinding> granted = new ArrayList<>();
        List<AclBindingFilter> revoked = new ArrayList<>();
        for (int i = 2; i < args.length; i++) {
            boolean revokes = args[i].startsWith("-");
            String[] right = args[i].substring(revokes ? 1 : 0).split(":", 2);
            ResourcePattern on = right.length == 2
                ? new ResourcePattern(ResourceType.TOPIC, right[1], PatternType.LITERAL)
                : new ResourcePattern(ResourceType.CLUSTER, Resource.CLUSTER_NAME, PatternType.LITERAL);
            AclBinding binding = new AclBinding(on, new AccessControlEntry(
                "User:" + args[1], "*", AclOperation.fromString(right[0]), AclPermissionType.ALLOW));
            if (revokes) {
                revoked.add(binding.toFilter());
            } else {
                granted.add(binding);
            }
        }
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", args[0]))) {
            admin.deleteAcls(revoked).all().get();
            admin.createAcls(granted).all().get();
        }
    }
}
